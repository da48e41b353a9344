//! Reads files that the command line names; `-` is standard input.

use std::io::Read as _;
use std::path::Path;

use crate::error::CliError;
use crate::exit::Exit;

/// Reads the text of a file; `-` is standard input.
///
/// # Errors
/// Fails when the file cannot be read, or is not UTF-8 text.
pub(crate) fn read_text_input_file(path: &Path) -> Result<String, CliError> {
    String::from_utf8(read_input_file(path)?).map_err(|e| {
        let error = anyhow::Error::new(e).context(format!("{} is not UTF-8 text", path.display()));
        CliError::new(Exit::Usage, error)
    })
}

/// Reads the bytes of a file; `-` is standard input.
///
/// # Errors
/// Fails when the file cannot be read.
pub(crate) fn read_input_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::File::open(path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map(drop)
    };
    read.map_err(|e| {
        let error = anyhow::Error::new(e).context(format!("could not read {}", path.display()));
        CliError::new(Exit::Missing, error)
    })?;
    Ok(bytes)
}
