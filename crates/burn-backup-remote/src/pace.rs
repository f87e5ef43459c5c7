//! A limit on the rate of sending.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Limits the average number of bytes sent per second.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    /// The earliest time of the next send at this rate.
    next_send: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second,
            next_send: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` may be sent.
    pub(crate) async fn wait(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        let mut next_send = self.next_send.lock().await;
        sleep_until(*next_send).await;
        let takes = bytes as f64 / rate.max(1) as f64;
        let takes = Duration::try_from_secs_f64(takes).unwrap_or(Duration::MAX);
        // Bandwidth that was not used is not saved up.
        let now = Instant::now();
        *next_send = now.checked_add(takes).unwrap_or(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_sent_at_the_given_rate() {
        let pace = Pace::new(Some(1000));
        let began = Instant::now();
        for _ in 0..4 {
            pace.wait(500).await;
        }
        // The last bytes are sent without a wait after them.
        assert_eq!(began.elapsed().as_millis() / 10, 150);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        pace.wait(500).await;
        pace.wait(500).await;
        assert_eq!(began.elapsed().as_millis() / 10, 50);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        let pace = Pace::new(None);
        let began = Instant::now();
        pace.wait(u64::MAX).await;
        pace.wait(u64::MAX).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
