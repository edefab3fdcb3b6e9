//! Answers that are believed for a while and asked for once at a time, however many wait for them.
//!
//! It knows neither what is asked nor of whom.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::ApiError;

/// How long a failure stands for those who ask the same thing: long enough that a crowd costs one request.
const FAILURE: Duration = Duration::from_secs(1);

pub(super) struct Answers<K, V> {
    bound: usize,
    slots: Mutex<HashMap<K, Arc<Slot<V>>>>,
}

struct Slot<V> {
    known: Mutex<Option<Known<V>>>,
    asking: tokio::sync::Mutex<()>,
}

struct Known<V> {
    asked: Instant,
    until: Instant,
    answer: Result<V, ApiError>,
}

/// An answer, and how long to believe it.
pub(super) type Kept<V> = (V, Instant);

impl<K: Eq + Hash + Clone, V: Clone> Answers<K, V> {
    /// Holds about `bound` answers; more push out those that are no longer believed, then all.
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, slots: Mutex::default() }
    }

    /// The answer to `key`; `ask` is called if none is known that is still believed, with the last one that was.
    pub(super) async fn get<F>(&self, key: &K, ask: impl FnOnce(Option<V>) -> F) -> Result<V, ApiError>
    where
        F: Future<Output = Result<Kept<V>, ApiError>>,
    {
        let slot = self.slot(key);
        if let Some(answer) = slot.believed() {
            return answer;
        }
        let _turn = slot.asking.lock().await;
        if let Some(answer) = slot.believed() {
            return answer;
        }
        let asked = Instant::now();
        let last = slot.known.lock().as_ref().and_then(|k| k.answer.clone().ok());
        let (answer, until) = match ask(last).await {
            Ok((value, until)) => (Ok(value), until),
            Err(error) => (Err(error), Instant::now() + FAILURE),
        };
        *slot.known.lock() = Some(Known { asked, until, answer: answer.clone() });
        answer
    }

    /// Ends the belief in the answer if `stale` says so of it and of when it was asked for. Failures stand.
    pub(super) fn doubt(&self, key: &K, stale: impl FnOnce(&V, Instant) -> bool) {
        let slot = self.slots.lock().get(key).cloned();
        let Some(slot) = slot else { return };
        if let Some(known) = slot.known.lock().as_mut()
            && let Ok(value) = &known.answer
            && stale(value, known.asked)
        {
            known.until = Instant::now();
        }
    }

    /// Drops the answer, and the last one that was believed with it, if `which` picks it.
    pub(super) fn drop_if(&self, key: &K, which: impl FnOnce(&V) -> bool) {
        let slot = self.slots.lock().get(key).cloned();
        let Some(slot) = slot else { return };
        let mut known = slot.known.lock();
        if known.as_ref().and_then(|k| k.answer.as_ref().ok()).is_some_and(which) {
            *known = None;
        }
    }

    fn slot(&self, key: &K) -> Arc<Slot<V>> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(key) {
            return slot.clone();
        }
        if slots.len() >= self.bound {
            slots.retain(|_, slot| slot.believed().is_some());
        }
        if slots.len() >= self.bound {
            slots.clear();
        }
        let slot = Arc::new(Slot { known: Mutex::default(), asking: tokio::sync::Mutex::default() });
        slots.insert(key.clone(), slot.clone());
        slot
    }
}

impl<V: Clone> Slot<V> {
    fn believed(&self) -> Option<Result<V, ApiError>> {
        let known = self.known.lock();
        known.as_ref().filter(|k| Instant::now() < k.until).map(|k| k.answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(300);

    #[tokio::test]
    async fn a_crowd_asks_once_and_again_when_the_answer_is_no_longer_believed() {
        let answers = Answers::<u8, u32>::new(4);
        let asked = AtomicU32::new(0);
        let ask = |_| async {
            tokio::task::yield_now().await;
            Ok((asked.fetch_add(1, Ordering::Relaxed), Instant::now() + LONG))
        };
        let crowd = futures::future::join_all((0..50).map(|_| answers.get(&1, ask))).await;
        assert!(crowd.into_iter().all(|answer| answer.unwrap() == 0));
        answers.doubt(&1, |_, asked| asked.elapsed() > LONG);
        assert_eq!(answers.get(&1, ask).await.unwrap(), 0, "not doubted");
        answers.doubt(&1, |value, _| *value == 0);
        assert_eq!(answers.get(&1, ask).await.unwrap(), 1);
        let old = |_| async { Ok((7, Instant::now())) };
        answers.drop_if(&1, |_| true);
        assert_eq!(answers.get(&1, old).await.unwrap(), 7);
        assert_eq!(answers.get(&1, ask).await.unwrap(), 2, "7 was old at once");
    }

    #[tokio::test]
    async fn the_last_answer_is_at_hand_for_who_asks_again() {
        let answers = Answers::<u8, u32>::new(4);
        answers.get(&1, |_| async { Ok((7, Instant::now())) }).await.unwrap();
        let again = |last: Option<u32>| async move { Ok((last.unwrap() + 1, Instant::now())) };
        assert_eq!(answers.get(&1, again).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn a_failure_stands_for_who_comes_next_and_the_count_is_bounded() {
        let answers = Answers::<u8, u32>::new(4);
        let fail = |_| async { Err(ApiError::Unreachable("no".into())) };
        let answer = |_| async { Ok((7, Instant::now() + LONG)) };
        assert!(answers.get(&1, fail).await.is_err());
        assert!(answers.get(&1, answer).await.is_err());
        for key in 2..200 {
            assert_eq!(answers.get(&key, answer).await.unwrap(), 7);
        }
        assert!(answers.slots.lock().len() <= 4);
    }
}
