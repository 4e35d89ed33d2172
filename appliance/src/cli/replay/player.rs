//! Plays a script in the terminal: at its own pace, faster, held, or statement by statement.

use super::screen::{Key, Screen, Waited};
use super::script::Event;
use crate::audit::when;
use std::io;
use std::time::{Duration, Instant};

/// Speeds that the keys lead through; `--speed` may be any between the ends.
pub const SPEED_MIN: f64 = 0.01;
pub const SPEED_MAX: f64 = 1000.0;

/// How a replay stands. Pure: the screen is its caller's.
struct Player<'e> {
    events: &'e [Event],
    offsets: &'e [Duration],
    /// The event that is shown next.
    next: usize,
    speed: f64,
    paused: bool,
}

/// What a key asks the screen to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Move {
    Nothing,
    /// Show everything up to [`Player::next`] that is not shown yet.
    On,
    /// The same, on an empty screen.
    Again,
    Quit,
}

impl Player<'_> {
    /// How long the next event is waited for, once the one before it is shown.
    fn pause(&self) -> Duration {
        let before = self.next.checked_sub(1).map_or(Duration::ZERO, |before| self.offsets[before]);
        (self.offsets[self.next] - before).div_f64(self.speed)
    }

    fn is_over(&self) -> bool {
        self.next >= self.events.len()
    }

    fn press(&mut self, key: Key) -> Move {
        match key {
            Key::Quit => return Move::Quit,
            Key::Pause => self.paused = !self.paused,
            Key::Faster => self.speed = (self.speed * 2.0).min(SPEED_MAX),
            Key::Slower => self.speed = (self.speed / 2.0).max(SPEED_MIN),
            Key::Next => {
                let start = (self.next..self.events.len()).find(|&at| self.events[at].starts_turn);
                self.next = start.map_or(self.events.len(), |at| at + 1);
                return Move::On;
            }
            Key::Previous => {
                // The one that is on the screen first, unless its beginning is all there is of it.
                let shown = self.next.saturating_sub(1);
                let start = (0..shown).rev().find(|&at| self.events[at].starts_turn);
                self.next = start.map_or(1, |at| at + 1).min(self.events.len());
                return Move::Again;
            }
        }
        Move::Nothing
    }

    fn status(&self) -> String {
        let shown = &self.events[self.next.saturating_sub(1)];
        let statements = self.events.iter().filter(|event| event.starts_turn).count();
        let number = shown.turn.map_or(0, |turn| turn + 1);
        format!(
            " {} {number}/{statements}  {}  {}x  space: pause  left, right: statement  +, -: speed  q: quit ",
            if self.paused { "||" } else { "> " },
            when::short(shown.time_us),
            self.speed,
        )
    }
}

/// From the event `first` on; what is before it is shown at once.
pub fn play(events: &[Event], offsets: &[Duration], first: usize, speed: f64) -> io::Result<()> {
    let mut screen = Screen::take()?;
    let mut player = Player { events, offsets, next: first, speed, paused: false };
    show(&mut screen, events, 0..player.next)?;
    while !player.is_over() {
        let mut left = player.pause();
        loop {
            screen.status(&player.status())?;
            let began = Instant::now();
            let (speed, shown) = (player.speed, player.next);
            let news = screen.wait((!player.paused).then_some(left));
            if !player.paused {
                left = left.saturating_sub(began.elapsed());
            }
            match news {
                Waited::Closed => return Ok(()),
                Waited::TimeIsUp => {
                    player.next += 1;
                    show(&mut screen, events, shown..player.next)?;
                    break;
                }
                Waited::Key(key) => match player.press(key) {
                    Move::Quit => return Ok(()),
                    Move::Nothing => left = left.mul_f64(speed / player.speed),
                    Move::On => {
                        show(&mut screen, events, shown..player.next)?;
                        break;
                    }
                    Move::Again => {
                        screen.clear()?;
                        show(&mut screen, events, 0..player.next)?;
                        break;
                    }
                },
            }
        }
    }
    Ok(())
}

fn show(screen: &mut Screen, events: &[Event], which: std::ops::Range<usize>) -> io::Result<()> {
    let text: String = events[which].iter().map(|event| event.text.as_str()).collect();
    screen.print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A heading, three statements with their answers, an end.
    fn script() -> Vec<Event> {
        let event = |turn: Option<usize>, starts_turn| Event {
            time_us: 0,
            turn,
            starts_turn,
            text: String::new(),
            json: serde_json::Value::Null,
        };
        let mut events = vec![event(None, false)];
        events.extend((0..3).flat_map(|turn| [event(Some(turn), true), event(Some(turn), false)]));
        events.push(event(None, false));
        events
    }

    #[test]
    fn keys_lead_from_statement_to_statement() {
        let events = script();
        let offsets: Vec<Duration> = (0..8).map(Duration::from_secs).collect();
        let mut player = Player { events: &events, offsets: &offsets, next: 1, speed: 4.0, paused: false };
        assert_eq!(player.pause(), Duration::from_millis(250));
        assert_eq!((player.press(Key::Next), player.next), (Move::On, 2), "the first statement is shown");
        assert_eq!((player.press(Key::Next), player.next), (Move::On, 4), "its answer and the second");
        assert_eq!((player.press(Key::Previous), player.next), (Move::Again, 2), "back to the first");
        assert_eq!((player.press(Key::Previous), player.next), (Move::Again, 1), "before it");
        player.next = 5;
        assert_eq!((player.press(Key::Previous), player.next), (Move::Again, 4), "the second is answered: shown again");
        player.next = 6;
        assert_eq!((player.press(Key::Next), player.next), (Move::On, 8), "behind the last statement is the end");
        assert!(player.is_over());
    }

    #[test]
    fn speed_has_bounds_and_a_pause_is_one() {
        let events = script();
        let offsets = vec![Duration::ZERO; 8];
        let mut player = Player { events: &events, offsets: &offsets, next: 1, speed: 1.0, paused: false };
        (0..20).for_each(|_| assert_eq!(player.press(Key::Faster), Move::Nothing));
        assert_eq!(player.speed, SPEED_MAX);
        (0..40).for_each(|_| assert_eq!(player.press(Key::Slower), Move::Nothing));
        assert_eq!(player.speed, SPEED_MIN);
        player.press(Key::Pause);
        assert!(player.paused && player.status().contains("||"));
        assert_eq!(player.press(Key::Quit), Move::Quit);
    }
}
