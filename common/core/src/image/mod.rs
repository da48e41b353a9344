//! The image contract: the image's description of itself, in `image.toml` and in one label.
//!
//! The build stores the contract in the image as the label [`CONTRACT_LABEL`], in JSON. Any image
//! with that label and the runner as its entry point works, no matter how it was built.

mod contract;
mod extends;
mod fit;
mod language;
mod python_packages;

pub use contract::{CONTRACT_LABEL, CONTRACT_VERSION, ContractError, ImageContract};
pub use extends::extends;
pub use fit::{FitError, Invocation};
pub use language::{LanguageSpec, ZygoteSpec};
pub use python_packages::PythonPackages;
