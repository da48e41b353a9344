//! The files under /etc that say who and where a program is: the same for every cell, and nothing of the machine's.

use std::fs;

use sandhog_runner::{CELL_UID, WORK_DIR};

use super::CellError;
use super::error::Step;
use super::mounts::{OWN_DIR, replace_file};

/// The name of the cell's user and group.
pub(super) const USER: &str = "sandbox";

/// The cell's host name.
pub(super) const HOST: &str = "sandbox";

/// Puts our own `hosts`, `hostname` and empty `resolv.conf` in place of the engine's, which name the machine's
/// resolvers, and adds the cell's user to the image's `passwd` and `group`.
///
/// # Errors
/// When a file cannot be written or put in place.
pub(super) fn replace() -> Result<(), CellError> {
    let passwd = read("/etc/passwd");
    let group = read("/etc/group");
    let hosts = format!("127.0.0.1\tlocalhost {HOST}\n::1\tlocalhost {HOST}\n");
    put("hosts", &hosts)?;
    put("hostname", &format!("{HOST}\n"))?;
    put("resolv.conf", "")?;
    put("passwd", &with_user(&passwd))?;
    put("group", &with_group(&group))
}

fn put(name: &str, text: &str) -> Result<(), CellError> {
    let own = format!("{OWN_DIR}/{name}");
    fs::write(&own, text).step("write the cell's files for /etc")?;
    replace_file(&own, &format!("/etc/{name}"))
}

/// A file of the image; empty when it has none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn with_user(passwd: &str) -> String {
    let line = format!("{USER}:x:{CELL_UID}:{CELL_UID}:{USER}:{WORK_DIR}:/bin/sh");
    with_line(passwd, line)
}

fn with_group(group: &str) -> String {
    with_line(group, format!("{USER}:x:{CELL_UID}:"))
}

/// The text and our line, without the lines that claim our name or number.
fn with_line(text: &str, line: String) -> String {
    let number = CELL_UID.to_string();
    let mut lines: Vec<&str> = text
        .lines()
        .filter(|other| {
            let mut fields = other.split(':');
            fields.next() != Some(USER) && fields.nth(1) != Some(&number)
        })
        .collect();
    lines.push(&line);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_user_replaces_any_that_claims_its_name_or_number() {
        let image = "root:x:0:0:root:/root:/bin/bash\nsandbox:x:1000:1000::/home:/bin/sh\nodd:x:65000:1::/:/bin/sh\n";
        assert_eq!(
            with_user(image),
            "root:x:0:0:root:/root:/bin/bash\nsandbox:x:65000:65000:sandbox:/work:/bin/sh\n"
        );
        assert_eq!(with_group(""), "sandbox:x:65000:\n");
    }
}
