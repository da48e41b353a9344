//! Settings of tenants, and the pause of a whole queue.
//!
//! The scripts apply the settings: `bind` passes over tenants that are at their limits, `tick`
//! issues the tickets that were withheld in the meantime, and `admit` rejects jobs above a tenant's
//! limit of waiting jobs.

use crate::resp::RespValue;
use crate::script::{TENANT_LOOK, TENANT_SET};
use crate::{Queue, QueueError};
use sandhog_core::id::Tenant;
use sandhog_core::tenant_limits::{TenantChange, TenantLimitError, TenantLimits};
use sandhog_core::units::ByteCount;

/// Settings and usage of a tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantRecord {
    /// The tenant.
    pub tenant: Tenant,
    /// Its settings.
    pub settings: TenantLimits,
    /// Number of its running jobs.
    pub running: u64,
    /// Number of its jobs that wait for a worker.
    pub ready: u64,
    /// Bytes of its large results that are kept.
    pub retained: ByteCount,
}

impl Queue {
    /// Changes a tenant's settings. After a limit is removed or raised, jobs may start within a
    /// second. Running jobs are not affected.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn set_tenant(
        &self,
        tenant: &Tenant,
        change: &TenantChange,
    ) -> Result<(), QueueError> {
        let mut call = TENANT_SET.call(self.keys.prefix()).arg(tenant.as_str());
        for (field, value) in change.fields() {
            call.push(field);
            call.push(value);
        }
        call.run(&self.connection).await.map(drop)
    }

    /// Returns a tenant's settings and usage. An unknown tenant has no settings.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached, or when a setting cannot be decoded.
    pub async fn tenant(&self, tenant: &Tenant) -> Result<TenantRecord, QueueError> {
        let call = TENANT_LOOK.call(self.keys.prefix()).arg(tenant.as_str());
        let mut parts = RespValue::new("tenant", call.run(&self.connection).await?).parts()?;
        let settings = TenantLimits {
            weight: setting(parts.part()?)?,
            max_running: setting(parts.part()?)?,
            rate: setting(parts.part()?)?,
            burst: setting(parts.part()?)?,
            max_queued: setting(parts.part()?)?,
            paused: parts.part()?.maybe_text()?.is_some(),
            max_retained: setting(parts.part()?)?,
        };
        Ok(TenantRecord {
            tenant: tenant.clone(),
            settings,
            running: parts.part()?.number()?,
            ready: parts.part()?.number()?,
            retained: ByteCount(parts.part()?.number()?),
        })
    }

    /// Returns all tenants that have settings, sorted.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached, or when a setting cannot be decoded.
    pub async fn tenants(&self) -> Result<Vec<TenantRecord>, QueueError> {
        let tenants: Vec<Tenant> = self.members(&self.keys.tenants()).await?;
        let mut records = Vec::with_capacity(tenants.len());
        for tenant in &tenants {
            records.push(self.tenant(tenant).await?);
        }
        Ok(records)
    }

    /// Pauses the queue: no job starts until it is resumed. Running jobs continue, and new jobs are
    /// admitted.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn pause(&self) -> Result<(), QueueError> {
        let mut command = redis::cmd("HSET");
        command.arg(self.keys.gate()).arg(&["paused", "1"]);
        self.connection
            .run_repeatable("HSET", &command)
            .await
            .map(drop)
    }

    /// Ends a pause: waiting jobs start within a second.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn resume(&self) -> Result<(), QueueError> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.keys.gate()).arg("paused");
        self.connection
            .run_repeatable("HDEL", &command)
            .await
            .map(drop)
    }
}

fn setting<T: std::str::FromStr<Err = TenantLimitError>>(
    reply: RespValue,
) -> Result<Option<T>, QueueError> {
    let text = reply.maybe_text()?;
    text.map(|text| {
        text.parse()
            .map_err(|error: TenantLimitError| QueueError::Reply {
                command: "tenant",
                detail: error.to_string(),
            })
    })
    .transpose()
}
