//! Tenants' settings, and the pause of a whole queue.
//!
//! What they mean is in the scripts: `bind` passes over tenants at their limits, `tick` gives out the tickets that were
//! withheld meanwhile, `admit` refuses what a tenant may not queue any more.

use super::reply::Reply;
use super::script::{TENANT_LOOK, TENANT_SET};
use super::{Queue, QueueError};
use crate::id::Tenant;
use crate::tenancy::{TenancyError, TenantChange, TenantSettings};
use crate::units::ByteCount;

/// What is set for a tenant, and what it has.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantRecord {
    /// Who.
    pub tenant: Tenant,
    /// What is set.
    pub settings: TenantSettings,
    /// Its jobs that run.
    pub running: u64,
    /// Its jobs that wait for a worker.
    pub ready: u64,
    /// Bytes of its large results that are kept.
    pub retained: ByteCount,
}

impl Queue {
    /// Changes a tenant's settings. A limit that is lifted or raised lets jobs start within a second; jobs that run
    /// already are left alone.
    ///
    /// # Errors
    /// When Redis cannot be reached.
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
        call.run(&self.link).await.map(drop)
    }

    /// What is set for a tenant and what it has; nothing set, for one that nobody has heard of.
    ///
    /// # Errors
    /// When Redis cannot be reached, or a setting does not read.
    pub async fn tenant(&self, tenant: &Tenant) -> Result<TenantRecord, QueueError> {
        let call = TENANT_LOOK.call(self.keys.prefix()).arg(tenant.as_str());
        let mut parts = Reply::new("tenant", call.run(&self.link).await?).parts()?;
        let settings = TenantSettings {
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

    /// Every tenant with settings of its own, sorted.
    ///
    /// # Errors
    /// When Redis cannot be reached, or a setting does not read.
    pub async fn tenants(&self) -> Result<Vec<TenantRecord>, QueueError> {
        let tenants: Vec<Tenant> = self.members(&self.keys.tenants()).await?;
        let mut records = Vec::with_capacity(tenants.len());
        for tenant in &tenants {
            records.push(self.tenant(tenant).await?);
        }
        Ok(records)
    }

    /// Pauses the queue: nothing starts until it is resumed. What runs goes on, and jobs are taken in.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn pause(&self) -> Result<(), QueueError> {
        let mut command = redis::cmd("HSET");
        command.arg(self.keys.gate()).arg(&["paused", "1"]);
        self.link.repeatable("HSET", &command).await.map(drop)
    }

    /// Ends a pause: what waits starts within a second.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn resume(&self) -> Result<(), QueueError> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.keys.gate()).arg("paused");
        self.link.repeatable("HDEL", &command).await.map(drop)
    }
}

fn setting<T: std::str::FromStr<Err = TenancyError>>(
    reply: Reply,
) -> Result<Option<T>, QueueError> {
    let text = reply.maybe_text()?;
    text.map(|text| {
        text.parse()
            .map_err(|error: TenancyError| QueueError::Reply {
                command: "tenant",
                detail: error.to_string(),
            })
    })
    .transpose()
}
