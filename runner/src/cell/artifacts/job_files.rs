//! Files that are put into a cell before its program starts.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use nix::errno::Errno;

use sandhog_protocol::frames::InputFile;

/// Writes the files of a job below the current directory, with the rights of the caller.
///
/// # Errors
/// Fails if a file cannot be made. Names that lead out of the directory are refused with `EINVAL`.
pub(in crate::cell) fn write_job_files(files: &[InputFile]) -> io::Result<()> {
    for file in files {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !file.path.split('/').all(plain) {
            return Err(io::Error::from_raw_os_error(Errno::EINVAL as i32));
        }
        if let Some((folder, _name)) = file.path.rsplit_once('/') {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)?;
        }
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&file.path)?
            .write_all(&file.data)?;
    }
    Ok(())
}
