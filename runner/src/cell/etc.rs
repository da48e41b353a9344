//! The files under /etc that say who and where a program is: the same for every cell, and nothing of the machine's.

use std::fs;

use sandhog_runner::WORK_DIR;

use super::CellError;
use super::error::Step;
use super::identity::CellUser;
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
pub(super) fn replace(user: CellUser) -> Result<(), CellError> {
    let passwd = read("/etc/passwd");
    let group = read("/etc/group");
    let hosts = format!("127.0.0.1\tlocalhost {HOST}\n::1\tlocalhost {HOST}\n");
    put("hosts", &hosts)?;
    put("hostname", &format!("{HOST}\n"))?;
    put("resolv.conf", "")?;
    put("passwd", &with_user(&passwd, user.number()))?;
    put("group", &with_group(&group, user.number()))
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

fn with_user(passwd: &str, number: u32) -> String {
    let line = format!("{USER}:x:{number}:{number}:{USER}:{WORK_DIR}:/bin/sh");
    with_line(passwd, line, number)
}

fn with_group(group: &str, number: u32) -> String {
    with_line(group, format!("{USER}:x:{number}:"), number)
}

/// The text and our line, without the lines that claim our name or number.
fn with_line(text: &str, line: String, number: u32) -> String {
    let number = number.to_string();
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
        let image = "root:x:0:0:root:/root:/bin/bash\nsandbox:x:1000:1000::/home:/bin/sh\nodd:x:1234567:1::/:/bin/sh\n";
        assert_eq!(
            with_user(image, 1_234_567),
            "root:x:0:0:root:/root:/bin/bash\nsandbox:x:1234567:1234567:sandbox:/work:/bin/sh\n"
        );
        assert_eq!(with_group("", 1_234_567), "sandbox:x:1234567:\n");
    }
}
