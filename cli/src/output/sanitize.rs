//! Makes text of untrusted programs safe to print on a terminal.

/// Makes untrusted text safe to print on one line. Replaces control characters, which could rewrite
/// the terminal, by `�`.
#[must_use]
pub(crate) fn sanitize(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Most lines of untrusted text that are shown after its first line.
const SANITIZED_LINES_MAX: usize = 40;

/// Makes untrusted text of several lines safe to print, such as the end of a log. Keeps its first
/// line and its last lines, each passed through [`sanitize`]. All lines but the first are indented,
/// so that none looks like a line of `sandhog` itself.
#[must_use]
pub(crate) fn sanitize_lines(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let rest: Vec<&str> = lines.collect();
    let left_out = rest.len().saturating_sub(SANITIZED_LINES_MAX);
    let mut shown = sanitize(first);
    if left_out > 0 {
        shown.push_str(&format!("\n  … {left_out} lines are left out"));
    }
    for line in rest.iter().skip(left_out) {
        shown.push_str("\n  ");
        shown.push_str(&sanitize(&line.replace('\t', "    ")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_log_stay_lines_and_cannot_pass_for_ours() {
        let log = "its log ends:\r\n\tat\u{1b}[2J x\nerror: no\u{7}\n";
        assert_eq!(
            sanitize_lines(log),
            "its log ends:\n      at\u{fffd}[2J x\n  error: no\u{fffd}"
        );
        assert_eq!(sanitize_lines(""), "");
        let long: String = (0..100).map(|i| format!("{i}\n")).collect();
        let shown = sanitize_lines(&long);
        assert_eq!(shown.lines().count(), 2 + SANITIZED_LINES_MAX);
        assert!(
            shown.starts_with("0\n  … 59 lines are left out\n  60\n"),
            "{shown}"
        );
        assert!(shown.ends_with("\n  99"), "{shown}");
    }
}
