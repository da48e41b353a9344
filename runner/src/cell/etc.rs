//! Files under /etc that hold the program's user and host names. They are the same for every cell
//! and reveal nothing about the machine.

use std::fs;

use sandhog_protocol::install::WORK_DIR;

use super::CellError;
use super::cell_user::CellUser;
use super::error::Step;
use super::mounts::{OWN_DIR, replace_file};

/// Name of the cell's user and group.
pub(super) const USER: &str = "sandbox";

/// Host name of the cell.
pub(super) const HOST: &str = "sandbox";

/// Replaces the engine's `hosts`, `hostname` and `resolv.conf`, which name the machine's resolvers,
/// by the runner's own; its `resolv.conf` is empty. Adds the cell's user to the image's `passwd`
/// and `group`.
///
/// # Errors
/// Fails if a file cannot be written or put in place.
pub(super) fn install_etc(user: CellUser) -> Result<(), CellError> {
    let passwd = read("/etc/passwd");
    let group = read("/etc/group");
    let hosts = format!("127.0.0.1\tlocalhost {HOST}\n::1\tlocalhost {HOST}\n");
    install_file("hosts", &hosts)?;
    install_file("hostname", &format!("{HOST}\n"))?;
    install_file("resolv.conf", "")?;
    install_file("passwd", &with_user(&passwd, user.number()))?;
    install_file("group", &with_group(&group, user.number()))
}

fn install_file(name: &str, text: &str) -> Result<(), CellError> {
    let own = format!("{OWN_DIR}/{name}");
    fs::write(&own, text).step("write the cell's files for /etc")?;
    replace_file(&own, &format!("/etc/{name}"))
}

/// Reads a file of the image. Returns an empty text if the image does not have it.
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

/// Returns the text with `line` added, without the lines that use the same name or number.
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
        let image = "root:x:0:0:root:/root:/bin/bash\n\
                     sandbox:x:1000:1000::/home:/bin/sh\n\
                     odd:x:1234567:1::/:/bin/sh\n";
        assert_eq!(
            with_user(image, 1_234_567),
            "root:x:0:0:root:/root:/bin/bash\nsandbox:x:1234567:1234567:sandbox:/work:/bin/sh\n"
        );
        assert_eq!(with_group("", 1_234_567), "sandbox:x:1234567:\n");
    }
}
