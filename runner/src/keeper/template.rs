//! The template zygote of a keeper: an interpreter with the image's libraries, from which each
//! sandbox gets a server of its own.
//!
//! The first sandbox that a worker opens with a zygote determines the program of the template. It
//! runs no job code and makes no clones, so it is the same for every sandbox.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use sandhog_protocol::keeper::ZygoteProgram;

use crate::cell::{CellError, FromZygote, ServerRequest, Zygote, fail_server};

/// Timeout for the template to import its libraries, as for a zygote of a runner.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// The template zygote, once a worker has opened a sandbox with a zygote.
#[derive(Debug, Default)]
pub(super) struct TemplateSlot(Option<Template>);

#[derive(Debug)]
struct Template {
    program: ZygoteProgram,
    zygote: Zygote,
    process: Pid,
    state: TemplateState,
    /// Requests that the template has not received yet.
    queue: VecDeque<ServerRequest>,
}

#[derive(Debug)]
enum TemplateState {
    /// The template imports its libraries, at most until this time.
    Importing(Instant),
    /// The template forks servers.
    Ready,
    /// The template failed, and every later request fails in the same way.
    Failed(CellError),
}

impl TemplateSlot {
    /// Starts the template for the first sandbox that has a zygote, before its runner requests a
    /// server, so that the libraries are imported while the runner starts.
    pub(super) fn prepare(&mut self, program: &ZygoteProgram) {
        // If that fails, so does the request of the runner, which receives the reason.
        self.started(program).ok();
    }

    /// Takes the request of a runner whose worker opened the sandbox with this zygote. The runner
    /// receives its server, or the step that failed, on the control socket of the request.
    ///
    /// # Errors
    /// With the reason for which the runner must start a zygote of its own.
    pub(super) fn request(
        &mut self,
        program: Option<&ZygoteProgram>,
        received: ServerRequest,
    ) -> Result<(), String> {
        let program = program.ok_or_else(|| "the sandbox was opened without one".to_owned())?;
        let template = self.started(program)?;
        template.queue.push_back(received);
        template.advance();
        Ok(())
    }

    /// Returns the template, which is started if there is none.
    fn started(&mut self, program: &ZygoteProgram) -> Result<&mut Template, String> {
        let template = match self.0.take() {
            Some(template) => template,
            None => {
                let (zygote, process) =
                    Zygote::start_template(program).map_err(|error| error.line())?;
                Template {
                    program: program.clone(),
                    zygote,
                    process,
                    state: TemplateState::Importing(Instant::now() + IMPORT_TIMEOUT),
                    queue: VecDeque::new(),
                }
            }
        };
        let template = self.0.insert(template);
        if template.program != *program {
            return Err(format!(
                "the keeper's zygote runs {:?} with other variables, imports or CPU",
                template.program.argv
            ));
        }
        Ok(template)
    }

    /// Returns the descriptor to wait for, and whether to wait until it is writable too.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let template = self.0.as_ref()?;
        match template.state {
            TemplateState::Importing(_) => Some((template.zygote.control(), false)),
            TemplateState::Ready => Some((template.zygote.control(), !template.queue.is_empty())),
            TemplateState::Failed(_) => None,
        }
    }

    /// Returns the time at which [`TemplateSlot::advance`] must be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.0.as_ref()?.state {
            TemplateState::Importing(until) => Some(until),
            TemplateState::Ready | TemplateState::Failed(_) => None,
        }
    }

    /// Receives the messages of the template, and sends it the requests that wait.
    pub(super) fn advance(&mut self) {
        if let Some(template) = &mut self.0 {
            template.receive();
            template.advance();
        }
    }

    /// Records a dead child of the keeper. If it is the template, the next request starts another
    /// one, unless the imports failed. Servers that were forked already are not affected.
    pub(super) fn note_reaped(&mut self, process: Pid) {
        let Some(template) = &mut self.0 else {
            return;
        };
        if template.process != process {
            return;
        }
        // The last message may explain the end.
        template.receive();
        template.fail_queue(&CellError::new("keep the zygote alive", Errno::ECHILD));
        if !matches!(template.state, TemplateState::Failed(_)) {
            self.0 = None;
        }
    }
}

impl Template {
    fn receive(&mut self) {
        while !matches!(self.state, TemplateState::Failed(_)) {
            match self.zygote.recv() {
                Ok(Some(FromZygote::Ready)) => self.state = TemplateState::Ready,
                Ok(Some(FromZygote::Failed(error))) => {
                    self.state = TemplateState::Failed(error);
                }
                // The keeper reaps the process, which ends this template.
                Ok(Some(FromZygote::Gone)) | Err(_) => {
                    kill(self.process, Signal::SIGKILL).ok();
                    return;
                }
                Ok(Some(FromZygote::Ended { .. })) => {}
                Ok(None) => return,
            }
        }
    }

    fn advance(&mut self) {
        match &self.state {
            TemplateState::Importing(until) if Instant::now() >= *until => {
                let error = CellError::new("await the zygote's imports", Errno::ETIMEDOUT);
                self.state = TemplateState::Failed(error.clone());
                kill(self.process, Signal::SIGKILL).ok();
                self.fail_queue(&error);
            }
            TemplateState::Importing(_) => {}
            TemplateState::Failed(error) => {
                let error = error.clone();
                self.fail_queue(&error);
            }
            TemplateState::Ready => self.send_queue(),
        }
    }

    fn send_queue(&mut self) {
        while let Some(next) = self.queue.front() {
            let (control, cgroups) = (next.control.as_fd(), next.cgroups.as_fd());
            match self.zygote.request_server(&next.clones, control, cgroups) {
                Err(Errno::EAGAIN) => return,
                Ok(()) => {}
                Err(errno) => fail_server(control, &CellError::new("ask for a server", errno)),
            }
            self.queue.pop_front();
        }
    }

    fn fail_queue(&mut self, error: &CellError) {
        for request in self.queue.drain(..) {
            fail_server(request.control.as_fd(), error);
        }
    }
}
