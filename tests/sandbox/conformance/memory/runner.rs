//! A runner in memory: the runner's side of the frames, with an interpreter in place of a cell.

use std::io;
use std::time::Duration;

use sandhog_protocol::frames::{
    self, Call, CallId, CallReport, CellReport, CgroupSupport, CloseCell, Features, FromRunner,
    HarnessAnswer, MAX_CHUNK, Program, ProgramEnd, Stop, Stream, ToRunner, VERSION,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::script::{Command, commands};

/// Exit code of a shell for an unknown command.
const EXIT_UNKNOWN_COMMAND: i32 = 127;

/// Memory that each container is said to use, in bytes.
const MEMORY_BYTES: u64 = 1 << 20;

/// Signal that ends a program that the runner stops.
const SIGKILL: i32 = 9;

/// Error number for a program that does not exist.
const ENOENT: i32 = 2;

/// A runner in memory and its connection.
pub(super) struct MemoryRunner {
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    buffer: Vec<u8>,
    /// The frame that closes the open cell, if it has arrived before the end of the call.
    close: Option<CloseCell>,
}

/// End of a script.
struct ScriptEnd {
    end: ProgramEnd,
    stop: Option<Stop>,
}

impl ScriptEnd {
    fn exited(code: i32) -> Self {
        Self {
            end: ProgramEnd::Exited(code),
            stop: None,
        }
    }

    fn stopped(stop: Stop) -> Self {
        Self {
            end: ProgramEnd::Signaled(SIGKILL),
            stop: Some(stop),
        }
    }
}

impl MemoryRunner {
    /// Creates the runner at the other end of the worker's streams.
    pub(super) fn new(stream: DuplexStream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            buffer: Vec::new(),
            close: None,
        }
    }

    /// Serves the worker until it closes the connection.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        let features = Features {
            cgroup: CgroupSupport::V2,
            network_namespace: true,
            seccomp: true,
            missing: Vec::new(),
            memory_bytes: Some(MEMORY_BYTES),
        };
        let ready = FromRunner::Ready {
            version: VERSION,
            features,
        };
        self.send(&ready).await?;
        while let Some(frame) = self.recv().await? {
            match frame {
                ToRunner::StartZygote(_) => {
                    let ready = FromRunner::ZygoteReady {
                        missing: None,
                        memory_bytes: Some(MEMORY_BYTES),
                    };
                    self.send(&ready).await?;
                }
                ToRunner::OpenCell(_) => self.serve_cell().await?,
                // They crossed the end of the last call on the way.
                ToRunner::Cancel { .. }
                | ToRunner::ModelInput { .. }
                | ToRunner::InferResponse { .. } => {}
                ToRunner::Call(_) | ToRunner::CloseCell(_) => return Err(out_of_order(&frame)),
            }
        }
        Ok(())
    }

    /// Serves one cell, from its first call until nothing of it is left.
    async fn serve_cell(&mut self) -> io::Result<()> {
        match self.recv().await? {
            Some(ToRunner::Call(call)) => self.serve_call(&call).await?,
            Some(other) => return Err(out_of_order(&other)),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        while self.close.take().is_none() {
            match self.recv().await? {
                Some(ToRunner::CloseCell(close)) => self.close = Some(close),
                Some(ToRunner::Cancel { .. }) => {}
                Some(other) => return Err(out_of_order(&other)),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let report = CellReport {
            cpu_ms: 1,
            memory_peak_bytes: MEMORY_BYTES,
            files: Vec::new(),
            left: Vec::new(),
            clean: true,
        };
        self.send(&FromRunner::CellEnded(Box::new(report))).await?;
        self.send(&FromRunner::CellClosed {
            clean: true,
            memory_bytes: Some(MEMORY_BYTES),
        })
        .await
    }

    async fn serve_call(&mut self, call: &Call) -> io::Result<()> {
        let began = Instant::now();
        self.send(&FromRunner::Started { id: call.id }).await?;
        let mut printed = [0, 0];
        let ScriptEnd { end, stop } = self.interpret(call, &mut printed).await?;
        let [stdout_bytes, stderr_bytes] = printed;
        let report = CallReport {
            end,
            stop,
            answer: HarnessAnswer::default(),
            pids_refused: false,
            scratch_full: false,
            stack_suspected: false,
            wall_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            stdout_bytes,
            stderr_bytes,
            displays_dropped: 0,
            warm: false,
        };
        self.send(&FromRunner::CallEnded {
            id: call.id,
            report: Box::new(report),
        })
        .await
    }

    /// Runs the script of a call, and counts the bytes that it prints to each stream.
    async fn interpret(&mut self, call: &Call, printed: &mut [u64; 2]) -> io::Result<ScriptEnd> {
        let script = match &call.program {
            Program::Argv { argv } => argv.get(2).filter(|_| argv.len() == 3),
            Program::Harness { .. } | Program::File { .. } | Program::Server { .. } => None,
        };
        let Some(script) = script else {
            return Ok(ScriptEnd {
                end: ProgramEnd::NotStarted(ENOENT),
                stop: None,
            });
        };
        let deadline = Instant::now() + Duration::from_millis(call.caps.wall_ms);
        for command in commands(script) {
            match command {
                Command::Echo(stream, text) => {
                    self.print(call.id, stream, text.as_bytes(), printed)
                        .await?;
                }
                Command::Cat => {
                    self.print(call.id, Stream::Stdout, &call.stdin, printed)
                        .await?;
                }
                Command::Sleep(time) => {
                    if let Some(stop) = self.sleep(call.id, time, deadline).await? {
                        return Ok(ScriptEnd::stopped(stop));
                    }
                }
                Command::Exit(code) => return Ok(ScriptEnd::exited(code)),
                Command::Unknown(text) => {
                    let text = format!("{text}: command not found\n");
                    self.print(call.id, Stream::Stderr, text.as_bytes(), printed)
                        .await?;
                    return Ok(ScriptEnd::exited(EXIT_UNKNOWN_COMMAND));
                }
            }
        }
        Ok(ScriptEnd::exited(0))
    }

    async fn print(
        &mut self,
        id: CallId,
        stream: Stream,
        data: &[u8],
        printed: &mut [u64; 2],
    ) -> io::Result<()> {
        let sum = match stream {
            Stream::Stdout => &mut printed[0],
            Stream::Stderr => &mut printed[1],
        };
        *sum += data.len() as u64;
        for chunk in data.chunks(MAX_CHUNK) {
            let data = chunk.to_vec();
            self.send(&FromRunner::Output { id, stream, data }).await?;
        }
        Ok(())
    }

    /// Waits, and meanwhile reads frames. Returns the reason if the program is stopped.
    async fn sleep(
        &mut self,
        id: CallId,
        time: Duration,
        deadline: Instant,
    ) -> io::Result<Option<Stop>> {
        let awake = Instant::now() + time;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return Ok(Some(Stop::WallClock)),
                () = tokio::time::sleep_until(awake) => return Ok(None),
                frame = self.recv() => match frame? {
                    Some(ToRunner::Cancel { id: cancelled }) if cancelled == id => {
                        return Ok(Some(Stop::Cancelled));
                    }
                    Some(ToRunner::CloseCell(close)) if self.close.is_none() => {
                        self.close = Some(close);
                    }
                    Some(other) => return Err(out_of_order(&other)),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
            }
        }
    }

    async fn send(&mut self, frame: &FromRunner) -> io::Result<()> {
        self.writer.write_all(&frames::encode(frame)).await?;
        self.writer.flush().await
    }

    /// Reads the next frame; `None` once the worker has closed the connection. Cancel safe: the
    /// part of a frame that has arrived stays in the buffer.
    async fn recv(&mut self) -> io::Result<Option<ToRunner>> {
        loop {
            if let Some(frame) = frames::take(&mut self.buffer).map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

fn out_of_order(frame: &ToRunner) -> io::Error {
    io::Error::other(format!("unexpected frame {frame:?}"))
}
