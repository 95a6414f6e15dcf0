//! Waiting before the next attempt, as client-go's `flowcontrol.Backoff` counts it for the kubelet.

use std::time::Duration;

use tokio::time::Instant;

/// How long a container that ended waits before it is started again: nothing the first time, then `initial`, doubling
/// up to `max`; forgotten when it ran for more than twice `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOffLimits {
    pub initial: Duration,
    pub max: Duration,
}

impl Default for BackOffLimits {
    /// Kubernetes' own: 10 s doubling to 300 s.
    fn default() -> Self {
        Self { initial: Duration::from_secs(10), max: Duration::from_secs(300) }
    }
}

/// The state of one container's back-off.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackOff {
    limits: BackOffLimits,
    current: Option<(Duration, Instant)>,
}

impl BackOff {
    pub(super) fn new(limits: BackOffLimits) -> Self {
        Self { limits, current: None }
    }

    /// How long to wait after a failure at `failed`, and remembers that there was one.
    pub(super) fn next(&mut self, failed: Instant) -> Duration {
        let forgotten = |since: Instant| failed.saturating_duration_since(since) > self.limits.max * 2;
        match self.current {
            Some((wait, since)) if !forgotten(since) => {
                self.current = Some(((wait * 2).min(self.limits.max), failed + wait));
                wait
            }
            _ => {
                self.current = Some((self.limits.initial, failed));
                Duration::ZERO
            }
        }
    }

    /// As [`BackOff::next`], for what waits already after the first failure, such as pulling an image.
    pub(super) fn next_from_the_first(&mut self, failed: Instant) -> Duration {
        if self.current.is_none() {
            self.current = Some((self.limits.initial, failed));
        }
        self.next(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a container waits that runs for so long each time.
    fn waits(back_off: &mut BackOff, now: &mut Instant, runs: Duration, times: usize) -> Vec<u64> {
        (0..times)
            .map(|_| {
                *now += runs;
                let wait = back_off.next(*now);
                *now += wait;
                wait.as_secs()
            })
            .collect()
    }

    #[test]
    fn doubles_from_ten_seconds_to_five_minutes() {
        let (mut back_off, mut now) = (BackOff::new(BackOffLimits::default()), Instant::now());
        assert_eq!(waits(&mut back_off, &mut now, Duration::from_secs(1), 9), [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn forgets_after_ten_good_minutes() {
        let (mut back_off, mut now) = (BackOff::new(BackOffLimits::default()), Instant::now());
        waits(&mut back_off, &mut now, Duration::from_secs(1), 4);
        assert_eq!(waits(&mut back_off, &mut now, Duration::from_secs(601), 1), [0]);
        assert_eq!(waits(&mut back_off, &mut now, Duration::from_secs(599), 1), [10]);
    }

    #[test]
    fn pulling_waits_from_the_first_failure() {
        let mut back_off = BackOff::new(BackOffLimits::default());
        let now = Instant::now();
        assert_eq!(back_off.next_from_the_first(now).as_secs(), 10);
        assert_eq!(back_off.next_from_the_first(now + Duration::from_secs(10)).as_secs(), 20);
    }
}
