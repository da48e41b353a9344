//! Conditions and rules of a filter, and the error of a filter that cannot be made.

use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// Reason why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(in crate::cell) enum FilterError {
    /// The compiler does not support this machine's instruction set, or a rule is wrong.
    #[error("the filter does not compile")]
    Compile(#[from] seccompiler::BackendError),
    /// The kernel refused the filter.
    #[error("the kernel refused the filter")]
    Install(#[from] seccompiler::Error),
}

/// Returns conditions that hold together if the argument is none of the allowed values.
pub(super) fn none_of(argument: u8, allowed: &[u32]) -> Result<Vec<SeccompCondition>, FilterError> {
    allowed
        .iter()
        .map(|value| dword(argument, SeccompCmpOp::Ne, u64::from(*value)))
        .collect()
}

pub(super) fn dword(
    argument: u8,
    op: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, FilterError> {
    Ok(SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        op,
        value,
    )?)
}

pub(super) fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, FilterError> {
    Ok(SeccompRule::new(conditions)?)
}
