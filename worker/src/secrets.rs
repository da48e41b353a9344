//! Secrets for programs: stored in a folder of the worker, named by jobs, granted by a policy.
//!
//! The folder contains one file for each secret, named after the secret, and `policy.toml`, which
//! states the tenants and images whose jobs may have each secret. Both are read for each job that
//! names a secret, so that a change takes effect at once. A value is only put into the program's
//! environment: it never appears in Redis, in the engine's data, in a log or in an error.
//!
//! A job cannot distinguish a secret that it may not have from one that does not exist.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sandhog_core::id::{ImageName, SecretName, Tenant, clip};
use sandhog_core::job::CheckedJob;
use sandhog_core::outcome::Fault;
use sandhog_protocol::frames::Secret;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

/// Name of the policy file. No secret has this name, because names of secrets have no small
/// letters.
const POLICY_FILE: &str = "policy.toml";

/// Maximum size of the policy, in bytes.
const MAX_POLICY_BYTES: u64 = 1 << 20;

/// Maximum size of a secret, in bytes. The kernel accepts a variable of twice that size.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Reason why a job does not get its secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The policy does not grant it, the secret does not exist, or the worker has no secrets.
    #[error("secret {secret} is not given to jobs of tenant {tenant} in image {image}")]
    Refused {
        /// The secret.
        secret: SecretName,
        /// The job's tenant.
        tenant: Tenant,
        /// The image that the job names.
        image: ImageName,
    },
    /// The policy cannot be read.
    #[error("policy {} cannot be read", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The policy is not valid.
    #[error("policy {} is not valid: {detail}", path.display())]
    BadPolicy {
        /// The file.
        path: PathBuf,
        /// The defect.
        detail: String,
    },
    /// A secret that the policy grants cannot be read.
    #[error("secret {secret} cannot be read from {}", path.display())]
    Value {
        /// The secret.
        secret: SecretName,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
}

impl SecretError {
    /// Returns the party at fault.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Refused { .. } => Fault::Submitter,
            Self::Policy { .. } | Self::BadPolicy { .. } | Self::Value { .. } => Fault::Service,
        }
    }
}

/// Grants of secrets to tenants and images.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretPolicy {
    #[serde(default)]
    allow: Vec<PolicyRule>,
}

/// Grants each of these secrets to each of these tenants in each of these images.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyRule {
    secrets: NameSet<SecretName>,
    tenants: NameSet<Tenant>,
    images: NameSet<ImageName>,
}

/// A set of names, or with `"*"` all names.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<String>")]
#[serde(bound = "T: FromStr + Ord, T::Err: std::fmt::Display")]
enum NameSet<T> {
    All,
    These(BTreeSet<T>),
}

impl<T> TryFrom<Vec<String>> for NameSet<T>
where
    T: FromStr + Ord,
{
    type Error = T::Err;

    fn try_from(words: Vec<String>) -> Result<Self, T::Err> {
        if words.iter().any(|word| word == "*") {
            return Ok(Self::All);
        }
        let names: Result<_, _> = words.iter().map(|word| word.parse()).collect();
        names.map(Self::These)
    }
}

impl<T: Ord> NameSet<T> {
    fn contains(&self, name: &T) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }
}

impl SecretPolicy {
    fn grants(&self, secret: &SecretName, tenant: &Tenant, image: &ImageName) -> bool {
        self.allow.iter().any(|rule| {
            rule.secrets.contains(secret)
                && rule.tenants.contains(tenant)
                && rule.images.contains(image)
        })
    }
}

/// The secrets of one worker.
#[derive(Debug, Clone)]
pub struct Secrets {
    folder: Option<PathBuf>,
}

impl Secrets {
    /// Returns the secrets in this folder; without a folder there are none.
    #[must_use]
    pub fn new(folder: Option<&Path>) -> Self {
        Self {
            folder: folder.map(Path::to_owned),
        }
    }

    /// Checks that the policy is valid.
    ///
    /// # Errors
    /// If it cannot be read or is not valid.
    pub async fn check(&self) -> Result<(), SecretError> {
        match &self.folder {
            Some(folder) => read_policy(folder).await.map(|_policy| ()),
            None => Ok(()),
        }
    }

    /// Returns the secrets that a job names, as environment variables.
    ///
    /// # Errors
    /// If the policy does not grant one of them, or the worker cannot read one of its files.
    pub(crate) async fn of(
        &self,
        job: &CheckedJob,
        tenant: &Tenant,
    ) -> Result<Vec<(String, Secret)>, SecretError> {
        if job.secrets.is_empty() {
            return Ok(Vec::new());
        }
        let policy = match &self.folder {
            Some(folder) => read_policy(folder).await?,
            None => SecretPolicy::default(),
        };
        let refused = job
            .secrets
            .iter()
            .find(|secret| !policy.grants(secret, tenant, &job.image));
        if let Some(secret) = refused {
            return Err(SecretError::Refused {
                secret: secret.clone(),
                tenant: tenant.clone(),
                image: job.image.clone(),
            });
        }
        let mut values = Vec::with_capacity(job.secrets.len());
        for secret in &job.secrets {
            let folder = self.folder.clone().unwrap_or_default();
            match read_value(&folder, secret).await? {
                Some(value) => values.push((secret.to_string(), value)),
                None => {
                    return Err(SecretError::Refused {
                        secret: secret.clone(),
                        tenant: tenant.clone(),
                        image: job.image.clone(),
                    });
                }
            }
        }
        Ok(values)
    }
}

/// Reads the policy.
async fn read_policy(folder: &Path) -> Result<SecretPolicy, SecretError> {
    let path = folder.join(POLICY_FILE);
    let text = match read_text(&path, MAX_POLICY_BYTES).await {
        Ok(text) => text,
        Err(source) => return Err(SecretError::Policy { path, source }),
    };
    toml::from_str(&text).map_err(|error| SecretError::BadPolicy {
        path,
        detail: clip(error.message(), 300),
    })
}

/// Returns a secret's value without the newline that editors append; `None` if the file does not
/// exist.
async fn read_value(folder: &Path, secret: &SecretName) -> Result<Option<Secret>, SecretError> {
    let path = folder.join(secret.as_str());
    match read_text(&path, MAX_SECRET_BYTES).await {
        Ok(text) if text.contains('\0') => Err(SecretError::Value {
            secret: secret.clone(),
            path,
            source: io::Error::new(io::ErrorKind::InvalidData, "it contains a NUL byte"),
        }),
        Ok(text) => {
            let line = text.strip_suffix('\n').unwrap_or(&text);
            let line = line.strip_suffix('\r').unwrap_or(line);
            Ok(Some(Secret::new(line.to_owned())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SecretError::Value {
            secret: secret.clone(),
            path,
            source,
        }),
    }
}

/// Reads a text file of at most `max_bytes`.
async fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(max_bytes + 1).read_to_string(&mut text).await?;
    if text.len() as u64 > max_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use sandhog_core::job::Job;

    use super::*;

    const RULES: &str = r#"
        [[allow]]
        secrets = ["API_KEY", "TOKEN"]
        tenants = ["acme"]
        images = ["python"]

        [[allow]]
        secrets = ["SHARED"]
        tenants = ["*"]
        images = ["python", "node"]
    "#;

    fn folder(policy: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            (POLICY_FILE, policy),
            ("API_KEY", "hush\n"),
            ("SHARED", " two\nlines \r\n"),
            ("OTHER", "x"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn job(image: &str, secrets: &[&str]) -> CheckedJob {
        let job = Job {
            secrets: secrets.iter().map(|name| name.parse().unwrap()).collect(),
            ..Job::code(image.parse().unwrap(), "1")
        };
        job.check().unwrap()
    }

    async fn given(
        folder: &Path,
        job: &CheckedJob,
        tenant: &str,
    ) -> Result<Vec<String>, SecretError> {
        let secrets = Secrets::new(Some(folder));
        let values = secrets.of(job, &tenant.parse().unwrap()).await?;
        Ok(values
            .into_iter()
            .map(|(name, value)| format!("{name}={}", value.reveal()))
            .collect())
    }

    #[tokio::test]
    async fn a_job_gets_what_the_policy_gives_it() {
        let folder = folder(RULES);
        let values = given(
            folder.path(),
            &job("python", &["API_KEY", "SHARED"]),
            "acme",
        )
        .await;
        assert_eq!(values.unwrap(), ["API_KEY=hush", "SHARED= two\nlines "]);
        let none = given(folder.path(), &job("python", &[]), "acme").await;
        assert_eq!(none.unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn anything_else_is_refused_by_name_and_in_the_same_words() {
        let folder = folder(RULES);
        for (case, image, secret, tenant) in [
            ("another tenant", "python", "API_KEY", "other"),
            ("another image", "node", "API_KEY", "acme"),
            ("in no rule", "python", "OTHER", "acme"),
            ("nowhere", "python", "NOTHING", "acme"),
            ("in a rule, and nowhere", "python", "TOKEN", "acme"),
        ] {
            let error = given(folder.path(), &job(image, &[secret]), tenant)
                .await
                .unwrap_err();
            assert_eq!(error.fault(), Fault::Submitter, "case {case}");
            let want =
                format!("secret {secret} is not given to jobs of tenant {tenant} in image {image}");
            assert_eq!(error.to_string(), want, "case {case}");
        }
        let nowhere = Secrets::new(None);
        let job = job("python", &["API_KEY"]);
        let refused = nowhere.of(&job, &"acme".parse().unwrap()).await;
        assert_eq!(refused.unwrap_err().fault(), Fault::Submitter);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_our_fault_and_shows_no_value() {
        for (case, policy) in [
            ("no TOML", "allow"),
            ("an unknown key", "[[allow]]\nsecret = []"),
            (
                "no tenants",
                "[[allow]]\nsecrets = [\"A\"]\nimages = [\"*\"]",
            ),
            (
                "a name that is none",
                "[[allow]]\nsecrets = [\"a/b\"]\ntenants = [\"*\"]\nimages = [\"*\"]",
            ),
        ] {
            let folder = folder(policy);
            let error = Secrets::new(Some(folder.path())).check().await.unwrap_err();
            assert_eq!(error.fault(), Fault::Service, "case {case}: {error}");
        }
        let folder = folder(RULES);
        let long = "hush".repeat(1 << 20);
        for (case, value) in [
            ("too long", long.as_bytes()),
            ("a NUL byte", b"hush\0"),
            ("no text", b"hush\xff"),
        ] {
            std::fs::write(folder.path().join("API_KEY"), value).unwrap();
            let error = given(folder.path(), &job("python", &["API_KEY"]), "acme")
                .await
                .unwrap_err();
            assert_eq!(error.fault(), Fault::Service, "case {case}");
            assert!(!format!("{error:?}").contains("hush"), "case {case}");
        }
    }
}
