//! Names of signals.

/// Returns the name of a signal, or its number if it has no name here.
pub(super) fn signal_name(number: i32) -> String {
    const SIGNAL_NAMES: [(i32, &str); 20] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (5, "SIGTRAP"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (10, "SIGUSR1"),
        (11, "SIGSEGV"),
        (12, "SIGUSR2"),
        (13, "SIGPIPE"),
        (14, "SIGALRM"),
        (15, "SIGTERM"),
        (19, "SIGSTOP"),
        (24, "SIGXCPU"),
        (25, "SIGXFSZ"),
        (30, "SIGPWR"),
        (31, "SIGSYS"),
    ];
    SIGNAL_NAMES
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(
            || format!("signal {number}"),
            |(_, name)| (*name).to_owned(),
        )
}
