//! Tasks that go on after the caller that started them.

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// Tasks in the background, such as starts and removals of containers. Clones share the tasks.
#[derive(Debug, Clone, Default)]
pub struct BackgroundTasks(TaskTracker);

impl BackgroundTasks {
    /// Runs `work` in the background. Returns `None` if the process is ending.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
        // Without a runtime the process is ending. A runner ends when its standard input closes;
        // the reaper of the next worker removes the containers that remain.
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(self.0.spawn_on(work, &runtime))
    }

    /// Waits until every task that was started so far has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: the tasks go on.
    pub async fn wait(&self) {
        self.0.close();
        self.0.wait().await;
        self.0.reopen();
    }
}
