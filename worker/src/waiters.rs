//! Tasks that wait for an answer, by number: each has a channel of its own and leaves when it is
//! dropped.

use std::collections::HashMap;

use tokio::sync::oneshot;

/// The tasks that wait for an answer of type `T`.
#[derive(Debug)]
pub(crate) struct Waiters<T> {
    senders: HashMap<u64, oneshot::Sender<T>>,
}

/// One waiting task. Dropping it calls `leave`, before or after it got its answer.
pub(crate) struct WaitingTask<T, F: FnMut()> {
    receiver: oneshot::Receiver<T>,
    leave: F,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self {
            senders: HashMap::new(),
        }
    }
}

impl<T> Waiters<T> {
    /// Adds a task under this number. `leave` must remove it again with [`Waiters::remove`].
    pub(crate) fn add<F: FnMut()>(&mut self, number: u64, leave: F) -> WaitingTask<T, F> {
        let (sender, receiver) = oneshot::channel();
        self.senders.insert(number, sender);
        WaitingTask { receiver, leave }
    }

    /// Sends the answer to the task with this number. Returns the answer if the task has left.
    pub(crate) fn answer(&mut self, number: u64, answer: T) -> Option<T> {
        match self.senders.remove(&number) {
            None => Some(answer),
            Some(sender) => sender.send(answer).err(),
        }
    }

    /// Removes the task with this number. Returns whether it was still waiting.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        self.senders.remove(&number).is_some()
    }
}

impl<T, F: FnMut()> WaitingTask<T, F> {
    /// Waits for the answer.
    ///
    /// # Cancel safety
    /// Dropping the future removes the task from the waiters.
    pub(crate) async fn answer(mut self) -> T {
        (&mut self.receiver)
            .await
            .expect("a waiter gets its answer before its sender is dropped")
    }
}

impl<T, F: FnMut()> Drop for WaitingTask<T, F> {
    fn drop(&mut self) {
        (self.leave)();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn each_task_gets_its_own_answer_and_one_that_left_gets_none() {
        let waiters = RefCell::new(Waiters::default());
        let leave = |number| {
            let waiters = &waiters;
            move || {
                waiters.borrow_mut().remove(number);
            }
        };
        let add = |number| {
            let leave = leave(number);
            waiters.borrow_mut().add(number, leave)
        };
        let (first, second, third) = (add(1), add(2), add(3));
        drop(second);
        assert!(!waiters.borrow_mut().remove(2), "it has left");
        let answer = |number, text| waiters.borrow_mut().answer(number, text);
        assert_eq!(answer(3, "third"), None);
        assert_eq!(answer(2, "second"), Some("second"));
        assert_eq!(answer(1, "first"), None);
        assert_eq!(answer(1, "again"), Some("again"), "each is answered once");
        assert_eq!(first.answer().now_or_never(), Some("first"));
        assert_eq!(third.answer().now_or_never(), Some("third"));
    }
}
