//! A cell whose call has ended: its files are collected, it is reported and removed, and the
//! standby cell for the next call is begun.

use sandhog_protocol::frames::{
    CellCaps, CellReport, CloseCell, FromRunner, ReportFlush, StandbyPlan,
};

use super::inputs::Inputs;
use crate::cell::{Cell, Collected, Ended, PreparedContainer};
use crate::cell_calls::CellCalls;
use crate::connection::Connection;
use crate::error::ServeError;
use crate::standby::Standby;

/// A cell whose processes are all dead, but which exists until [`EndedCell::close`] removes it.
#[derive(Debug)]
pub(crate) struct EndedCell {
    pub(super) cell: Cell,
    pub(super) caps: CellCaps,
    /// True if its program was a clone of the zygote.
    pub(super) is_clone: bool,
    pub(super) inputs: Inputs,
    /// The report, whose files have not been collected.
    pub(super) report: CellReport,
}

impl EndedCell {
    /// Records a dead child of the runner.
    pub(crate) fn note_reaped(&mut self, ended: Ended) {
        self.cell.note_reaped(ended);
    }

    /// Ends the cell: sends its report, removes it, and reports the removal. `call_ended` is sent
    /// together with the report, if the end of the call has not been sent yet.
    ///
    /// # Errors
    /// Fails if the connection to the worker failed.
    pub(crate) fn close(
        self,
        close: CloseCell,
        call_ended: Option<FromRunner>,
        container: &PreparedContainer,
        connection: &mut Connection,
        standby: Option<&mut Standby>,
        calls: &mut CellCalls,
    ) -> Result<(), ServeError> {
        let CloseCell {
            fetch,
            report_flush,
            standby: standby_plan,
        } = close;
        let Self {
            mut cell,
            caps,
            is_clone,
            mut inputs,
            report,
        } = self;
        inputs.retain_for(&fetch);
        let Collected { files, skipped } = cell.collect(&fetch, &inputs.into_snapshot());
        let cell_ended = FromRunner::CellEnded(Box::new(CellReport {
            files,
            left: skipped,
            ..report
        }));
        let reports: Vec<FromRunner> = call_ended.into_iter().chain([cell_ended]).collect();
        match report_flush {
            ReportFlush::Immediate => {
                connection.send_all(&reports).map_err(ServeError::Stream)?;
                // Yield, so that the shim forwards the reports before the runner spends CPU time on
                // cleanup.
                std::thread::yield_now();
            }
            ReportFlush::WithCleanup => connection
                .send_all_soon(&reports)
                .map_err(ServeError::Stream)?,
        }
        let clean = cell.remove() && standby.as_ref().is_none_or(|standby| standby.is_alive());
        let closed = FromRunner::CellClosed {
            clean,
            memory_bytes: container.memory_in_use(),
        };
        connection.send(&closed).map_err(ServeError::Stream)?;
        calls.note_removed();
        if let Some(standby) = standby
            && is_clone
            && standby_plan == StandbyPlan::Make
        {
            // Not earlier: the zygote makes one clone at a time, and the last cell's clone has to
            // be gone first. If the standby cell cannot be made now, it is made when the next job
            // needs it, and an error is reported then.
            std::thread::yield_now();
            standby.make_cell(container, &caps).ok();
        }
        Ok(())
    }
}
