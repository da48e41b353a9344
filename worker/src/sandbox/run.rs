//! One program in a cell of its own: the request for it, and the report on it.
//!
//! To the runner, a run is three frames: one that opens the cell, one for its only call, and one
//! that closes the cell. This module converts a [`Run`] to these frames, and the runner's two
//! reports, on the call and on the cell, to one [`Report`].

use sandhog_protocol::frames::{
    Call, CallCaps, CallId, CallReport, CellCaps, CellReport, CloseCell, DisplayCaps, DisplayPart,
    Fetch, FetchedFile, HarnessAnswer, InferQuota, InputFile, LeftFile, OpenCell, Program,
    ProgramEnd, ReportFlush, Secret, StandbyPlan, Stop, ToRunner,
};

/// The number of the only call of a cell.
pub(super) const ONLY_CALL: CallId = CallId(1);

/// One program and everything its cell needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program to start.
    pub program: Program,
    /// The program's standard input.
    pub stdin: Vec<u8>,
    /// The job's `input` as JSON text, for a program without a harness.
    pub input_json: Option<String>,
    /// The program's environment, in addition to the cell's own.
    pub env: Vec<(String, String)>,
    /// Environment variables whose values only the program can read.
    pub secrets: Vec<(String, Secret)>,
    /// The caps of the cell and of the program.
    pub caps: RunCaps,
    /// Files put into the working directory before the program starts.
    pub files: Vec<InputFile>,
    /// Files taken out of the working directory after the program has ended.
    pub fetch: Fetch,
    /// Caps on the program's inference requests. Without them the program may send none.
    pub infer_quota: Option<InferQuota>,
    /// Caps on the program's displays.
    pub displays: DisplayCaps,
    /// Time at which the runner sends its reports.
    pub report_flush: ReportFlush,
    /// Preparation of the sandbox for its next run.
    pub standby: StandbyPlan,
}

/// The caps of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunCaps {
    /// The caps of the cell.
    pub cell: CellCaps,
    /// The caps of the call: those of the program alone.
    pub call: CallCaps,
}

impl Run {
    /// Returns a run of this program with these caps and nothing else: no input, no variables, no
    /// files, no displays and no inference requests. The reports are sent at once.
    #[must_use]
    pub fn new(program: Program, caps: RunCaps) -> Self {
        Self {
            program,
            stdin: Vec::new(),
            input_json: None,
            env: Vec::new(),
            secrets: Vec::new(),
            caps,
            files: Vec::new(),
            fetch: Fetch::default(),
            infer_quota: None,
            displays: DisplayCaps::default(),
            report_flush: ReportFlush::default(),
            standby: StandbyPlan::default(),
        }
    }

    /// Returns the frames that open the cell, begin its call with the number [`ONLY_CALL`], and
    /// close the cell.
    pub(crate) fn into_frames(self) -> [ToRunner; 3] {
        let open = OpenCell {
            caps: self.caps.cell,
            env: self.env,
            secrets: self.secrets,
            files: self.files,
        };
        let call = Call {
            id: ONLY_CALL,
            program: self.program,
            stdin: self.stdin,
            input_json: self.input_json,
            caps: self.caps.call,
            displays: self.displays,
            infer_quota: self.infer_quota,
        };
        let close = CloseCell {
            fetch: self.fetch,
            report_flush: self.report_flush,
            standby: self.standby,
        };
        [
            ToRunner::OpenCell(Box::new(open)),
            ToRunner::Call(Box::new(call)),
            ToRunner::CloseCell(close),
        ]
    }
}

/// The report on one run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The end of the program's first process.
    pub end: ProgramEnd,
    /// The reason for which the runner stopped the program, if it did.
    pub stop: Option<Stop>,
    /// The harness's answer. Empty if the harness sent none that could be decoded.
    pub answer: HarnessAnswer,
    /// True if the kernel refused a process or thread because of the cap.
    pub pids_refused: bool,
    /// True if a scratch space was full at the end.
    pub scratch_full: bool,
    /// Set if SIGSEGV ended the program after its memory peak had reached the stack cap: the stack
    /// may have overflowed.
    pub stack_suspected: bool,
    /// Wall-clock time, in milliseconds.
    pub wall_ms: u64,
    /// CPU time of the whole process tree, in milliseconds.
    pub cpu_ms: u64,
    /// Peak memory of the whole process tree, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes written to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Bytes written to standard error, kept or not.
    pub stderr_bytes: u64,
    /// True if the program was cloned from the zygote.
    pub warm: bool,
    /// False if something is already known that forbids using the container again. The cleanup of
    /// the cell decides.
    pub clean: bool,
    /// Memory that the whole container uses after the cell is gone, in bytes without the file
    /// cache. `None` until the cell is removed.
    pub container_memory_bytes: Option<u64>,
    /// The requested files.
    pub files: Vec<FetchedFile>,
    /// The files that match a requested pattern but were not taken.
    pub left: Vec<LeftFile>,
    /// The program's displays.
    pub displays: Vec<Vec<DisplayPart>>,
    /// The number of dropped displays: those above a cap, and those that are not valid displays.
    pub displays_dropped: u64,
}

impl Report {
    /// Combines the runner's reports on a cell and on its only call. The program's displays arrived
    /// before them.
    pub(super) fn new(call: CallReport, cell: CellReport, displays: Vec<Vec<DisplayPart>>) -> Self {
        Self {
            end: call.end,
            stop: call.stop,
            answer: call.answer,
            pids_refused: call.pids_refused,
            scratch_full: call.scratch_full,
            stack_suspected: call.stack_suspected,
            wall_ms: call.wall_ms,
            cpu_ms: cell.cpu_ms,
            memory_peak_bytes: cell.memory_peak_bytes,
            stdout_bytes: call.stdout_bytes,
            stderr_bytes: call.stderr_bytes,
            warm: call.warm,
            clean: cell.clean,
            container_memory_bytes: None,
            files: cell.files,
            left: cell.left,
            displays,
            displays_dropped: call.displays_dropped,
        }
    }
}
