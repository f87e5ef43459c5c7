//! The queue of events for the callback.

use std::collections::VecDeque;

use crate::event::Event;

/// The largest number of waiting events. Beyond it the oldest are dropped, because the latest state matters most.
pub(super) const CAPACITY: usize = 256;

/// Events, and how many were dropped before the first of them.
#[derive(Default)]
pub(super) struct Queue {
    events: VecDeque<Event>,
    dropped: u64,
    /// Whether any was ever dropped.
    has_dropped: bool,
}

impl Queue {
    /// Returns whether this drops an event for the first time.
    pub(super) fn push(&mut self, event: Event) -> bool {
        let is_full = self.events.len() >= CAPACITY;
        if is_full {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(event);
        is_full && !std::mem::replace(&mut self.has_dropped, true)
    }

    /// The next event. Dropped events are reported in their place.
    pub(super) fn pop(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.dropped) {
            0 => self.events.pop_front(),
            events => Some(Event::Dropped { events }),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.events.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrored(generation: u64) -> Event {
        Event::Mirrored {
            position: None,
            generation,
        }
    }

    #[test]
    fn among_too_many_events_the_oldest_are_replaced_by_their_count() {
        let mut queue = Queue::default();
        let capacity = CAPACITY as u64;
        for generation in 0..capacity {
            assert!(!queue.push(mirrored(generation)));
        }
        assert!(queue.push(mirrored(capacity)), "the first that is dropped");
        assert!(!queue.push(mirrored(capacity + 1)));
        assert!(matches!(queue.pop(), Some(Event::Dropped { events: 2 })));
        for expected in 2..capacity + 2 {
            let event = queue.pop();
            assert!(
                matches!(event, Some(Event::Mirrored { generation, .. }) if generation == expected),
                "{event:?}"
            );
        }
        assert!(queue.pop().is_none());
    }
}
