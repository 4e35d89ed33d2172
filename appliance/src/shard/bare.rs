//! A drive that decides nothing: connects on the first bytes and clears everything both ways. What the bench measures
//! and what the shard's own tests run on.

use crate::gate::{Context, Drive, Input, Output};
use crate::snapshot::Target;
use codecs::{Pipes, Side, bare};
use std::collections::VecDeque;
use std::sync::Arc;

/// One connection carried to one target.
pub struct BareRelay {
    target: Arc<Target>,
    session: bare::Session,
    state: State,
    ended: [bool; 2],
    wishes: VecDeque<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitBytes,
    AwaitTarget,
    Open,
}

impl BareRelay {
    pub fn new(target: Arc<Target>) -> Self {
        let session = bare::Session::default();
        Self { target, session, state: State::AwaitBytes, ended: [false; 2], wishes: VecDeque::new() }
    }

    fn finish(&mut self, side: Side) {
        self.wishes.push_back(Output::Finish(side.other()));
        self.ended[side as usize] = true;
        if self.ended == [true; 2] {
            self.wishes.push_back(Output::Close);
        }
    }
}

impl Drive for BareRelay {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, _cx: &mut Context<'_>) {
        match input {
            Input::Bytes(side) if self.state == State::Open => self.session.step(side, pipes),
            Input::Bytes(_) if self.state == State::AwaitBytes => {
                self.wishes.push_back(Output::Connect(self.target.clone()));
                self.state = State::AwaitTarget;
            }
            Input::Connected => {
                self.state = State::Open;
                self.session.step(Side::Client, pipes);
                if self.ended[Side::Client as usize] {
                    self.wishes.push_back(Output::Finish(Side::Target));
                }
            }
            Input::Ended(side) if self.state == State::Open => self.finish(side),
            Input::Ended(_) if self.state == State::AwaitTarget => self.ended[Side::Client as usize] = true,
            Input::Ended(_) | Input::ConnectFailed(_) | Input::TlsFailed { .. } | Input::Kill(_) => {
                self.wishes.push_back(Output::Close);
            }
            Input::Bytes(_)
            | Input::Secured { .. }
            | Input::Wake
            | Input::JournalRoom
            | Input::Ruling { .. }
            | Input::Keys(_)
            | Input::Cancelled
            | Input::Catalogue(_)
            | Input::Read(_)
            | Input::Left => {}
        }
    }

    fn poll(&mut self) -> Output {
        self.wishes.pop_front().unwrap_or(Output::Idle)
    }

    fn wants(&self, side: Side) -> bool {
        side == Side::Target || self.state == State::Open
    }
}
