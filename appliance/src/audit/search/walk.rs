//! Along a shard's segments, frame by frame, to the last record there is: also where a gateway is writing at this very moment.

use super::Trouble;
use crate::audit::frame::FrameHeader;
use crate::audit::reader::Damage;
use crate::audit::stage::Left;
use crate::audit::trail::{Advance, ChainReader, Records};
use std::io;
use std::time::Duration;

/// How long a reader waits for a writer to finish the last frame before it calls it damaged.
const UNFINISHED_LOOKS: u32 = 20;
const UNFINISHED_PAUSE: Duration = Duration::from_millis(5);

pub(super) enum Next {
    /// Its records are [`Walk::records`].
    Frame(FrameHeader),
    Damage(Damage),
    /// Behind the last frame, with what is kept there and not written yet.
    End(Option<Left>),
}

pub(super) struct Walk {
    chain: ChainReader,
    /// At a frame that is not whole.
    looks: u32,
    looked_again: bool,
}

impl Walk {
    pub fn along(chain: ChainReader) -> Self {
        Self { chain, looks: 0, looked_again: false }
    }

    /// Of the frame last returned.
    pub fn records(&self) -> Records<'_> {
        self.chain.records()
    }

    pub fn next(&mut self, trouble: &mut dyn FnMut(Trouble)) -> io::Result<Next> {
        loop {
            match self.chain.advance()? {
                Advance::Frame(header) => {
                    (self.looks, self.looked_again) = (0, false);
                    return Ok(Next::Frame(header));
                }
                Advance::Damage(damage) => return Ok(Next::Damage(damage)),
                Advance::End if self.chain.is_unfinished() && self.looks < UNFINISHED_LOOKS => {
                    self.looks += 1;
                    std::thread::sleep(UNFINISHED_PAUSE);
                }
                Advance::End => {
                    let kept = self.kept(trouble);
                    // What was kept when it was looked at may have been written, and others be kept: the end is looked at once more.
                    if kept.is_none() && !std::mem::replace(&mut self.looked_again, true) {
                        continue;
                    }
                    self.chain.take_unfinished().into_iter().for_each(|found| trouble(Trouble::Segment(found)));
                    // What looks like the end may be the head of a segment that is lost.
                    let Some(behind) = self.chain.behind()? else { continue };
                    behind.into_iter().for_each(|found| trouble(Trouble::Segment(found)));
                    return Ok(Next::End(kept));
                }
            }
        }
    }

    /// Where that cannot be read, everything else can.
    fn kept(&self, trouble: &mut dyn FnMut(Trouble)) -> Option<Left> {
        self.chain.kept().unwrap_or_else(|error| {
            trouble(Trouble::Stage(error.to_string()));
            None
        })
    }
}
