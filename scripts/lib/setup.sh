# shellcheck shell=bash
# Installs the requirements for building, running and testing Sandhog on a machine. Sourced by the
# scripts. .devcontainer/Dockerfile lists the same packages.
#
# Every function may be called again at no cost: it checks first, and changes only what is missing.
# No function touches a Redis or an engine that already answers.

# Prints one line of progress to standard error, so that standard output holds only the script's
# results.
say() {
    printf '==> %s\n' "$*" >&2
}

# Ends the script with a reason, followed by a hint.
die() {
    printf 'error: %s\n' "$1" >&2
    [ "$#" -lt 2 ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Prints the folder below the target folder in which cargo builds this profile.
profile_dir() {
    case $1 in
        release) echo release ;;
        dev) echo debug ;;
        quickstart) echo quickstart ;;
        *) die "unknown profile $1" "want release, quickstart or dev" ;;
    esac
}

# Distributions leave these folders, which hold dockerd, out of the PATH of ordinary users.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root: $*" "run the script as root, or install sudo"
    fi
}

# require_root PURPOSE COMMAND: ends the script with the reason if this user cannot become root.
# COMMAND is the command for an administrator to run instead. If sudo requires a password, it is
# asked for here: later commands write to a log, where neither a prompt nor an error would be
# visible.
require_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    have sudo || die "$1 needs root, and $(id -un) has no sudo" \
        "have an administrator run this, then run the script again: $2"
    sudo -n true 2>/dev/null && return 0
    say "$1 needs root: sudo asks for the password of $(id -un)"
    sudo -v || die "$1 needs root, and sudo refused it to $(id -un)" \
        "have an administrator run this, then run the script again: $2"
}

# Installs these Debian packages. Fetches the package lists only if installing with the existing
# ones fails.
install_packages() {
    have apt-get || die "cannot install $*" \
        "this machine has no apt-get: install these by hand, then run the script again"
    local log apt=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq)
    apt+=(--no-install-recommends)
    require_root "installing $*" "apt-get install --no-install-recommends $*"
    say "installing: $*"
    log=$(mktemp)
    if ! as_root "${apt[@]}" "$@" >"$log" 2>&1; then
        if ! { as_root apt-get update -qq && as_root "${apt[@]}" "$@"; } >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            die "apt-get could not install: $*" "the whole log is $log"
        fi
    fi
    rm -f "$log"
}

# The base of all images, made and named as in worker/src/images/base.rs.
BASE_IMAGE=sandhog/base-bookworm

have_base_image() {
    docker_answers && docker image inspect "$BASE_IMAGE" >/dev/null 2>&1
}

# Prints the packages that building and running need and this machine lacks: a linker, an engine,
# Redis, and mmdebstrap if the base image does not exist yet.
missing_packages() {
    local missing=()
    have gcc || missing+=(gcc)
    [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
    have redis-server || missing+=(redis-server)
    have redis-cli || missing+=(redis-tools)
    if ! have_base_image; then
        have mmdebstrap || missing+=(mmdebstrap)
        [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
        # Without root, mmdebstrap works in a user namespace, for which it needs newuidmap.
        [ "$(id -u)" -eq 0 ] || have newuidmap || missing+=(uidmap)
    fi
    if ! have dockerd && ! docker_answers; then
        # On a kernel with AppArmor the engine loads a profile, which needs the parser.
        missing+=(docker.io apparmor)
        [ -d /run/systemd/system ] || missing+=(cgroupfs-mount)
    fi
    printf '%s\n' "${missing[*]}"
}

ensure_packages() {
    local missing
    refuse_denied_engine
    read -ra missing < <(missing_packages)
    [ "${#missing[@]}" -eq 0 ] || install_packages "${missing[@]}"
}

# Installs the additional requirement of the Python client tests: an interpreter that can make
# virtual environments.
ensure_python() {
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3 python3-venv
}

# Also finds a Rust that is installed but not on this shell's PATH.
have_rust() {
    have cargo || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    have cargo
}

# Installs Rust if it is missing, and requires at least the version of the workspace.
ensure_rust() {
    if ! have_rust; then
        have curl || install_packages curl ca-certificates
        say "installing Rust with rustup, in ${CARGO_HOME:-$HOME/.cargo}"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y --quiet --profile minimal >&2 ||
            die "Rust could not be installed" \
                "install it from https://rustup.rs, then run the script again"
    fi
    local want found
    want=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    found=$(rustc --version | cut -d ' ' -f 2)
    [ "$(printf '%s\n' "$want" "$found" | sort -V | head -n 1)" = "$want" ] ||
        die "rustc is $found, Sandhog needs $want" "rustup update stable"
}

# Installs the parts of Rust that only checks need.
ensure_rust_checks() {
    { have cargo-clippy && have cargo-fmt; } || rustup component add clippy rustfmt ||
        die "clippy and rustfmt could not be installed" "rustup component add clippy rustfmt"
}

# Returns whether the engine answers. Newer clients reject older engines unless they are told to use
# the older API version.
docker_answers() {
    have docker || return 1
    docker info >/dev/null 2>&1 && return 0
    if DOCKER_API_VERSION=1.41 docker info >/dev/null 2>&1; then
        export DOCKER_API_VERSION=1.41
        return 0
    fi
    return 1
}

# Returns whether an engine runs that this user may not use.
engine_denies() {
    have docker && ! docker_answers && grep -qi 'permission denied' <<<"$(docker info 2>&1)"
}

# Ends the script with advice if the engine runs but this user has no access. Installing packages or
# starting the engine again would not help.
refuse_denied_engine() {
    engine_denies || return 0
    local user
    user=$(id -un)
    if id -nG "$user" | grep -qw docker; then
        die "the container engine runs, but this session of $user is not in the group docker yet" \
            "log out and in again, or run: newgrp docker"
    fi
    local advice="sudo usermod -aG docker $user, then log out and in again"
    die "the container engine runs, but $user may not use it" \
        "$advice (the group docker is as good as root)"
}

# Returns whether one of these processes (all, or one by its pid) runs this command. A zombie does
# not count: if process 1 is slow to reap, the engine's own check takes a zombie for a live engine
# and does not start.
runs() {
    local command=$1 pid=${2:-[0-9]*}
    # shellcheck disable=SC2086 # the pid may be a pattern for all
    grep -qsE "^[0-9]+ \\($command\\) [^ZX]" /proc/$pid/stat
}

# Removes a pid file if its process is gone or runs another command. Where /run is on disk, such
# files remain after a hard stop, and the engine then does not start.
drop_stale_pid() {
    local file=$1 command=$2 pid
    as_root test -e "$file" || return 0
    pid=$(as_root cat "$file")
    if [ -z "$pid" ] || ! runs "$command" "$pid"; then
        as_root rm -f "$file"
    fi
}

# Makes sure that an engine answers: an existing one, or one started here, by systemd if that runs,
# or else directly.
ensure_docker() {
    docker_answers && return 0
    refuse_denied_engine
    have dockerd ||
        die "the container engine does not answer" "check DOCKER_HOST, or install docker.io"
    local log=/var/log/dockerd.log
    require_root "starting the container engine" "systemctl start docker"
    if [ -d /run/systemd/system ]; then
        say "starting the container engine with systemd"
        as_root systemctl start docker || true
        as_root touch "$OWN_ENGINE"
        log="journalctl -u docker"
    elif ! runs dockerd; then
        say "starting the container engine (log: $log)"
        drop_stale_pid /run/docker.pid dockerd
        drop_stale_pid /run/docker/containerd/containerd.pid containerd
        # Mounts the cgroup tree if no init has done so. Changes nothing if it is mounted.
        if have cgroupfs-mount; then as_root cgroupfs-mount || true; fi
        as_root sh -c "setsid nohup dockerd </dev/null >>$log 2>&1 &"
        as_root touch "$OWN_ENGINE"
    fi
    local _
    for _ in $(seq 120); do
        docker_answers && return 0
        refuse_denied_engine
        sleep 0.5
    done
    die "the container engine did not answer within a minute" "see $log"
}

# Marks an engine as started by ensure_docker, for later runs.
OWN_ENGINE=/run/sandhog-dockerd

# Registers gVisor as a runtime of the engine, for the tests under it. Does not change the settings
# of an engine that was not started here.
ensure_gvisor() {
    docker info --format '{{range $name, $_ := .Runtimes}}{{$name}} {{end}}' |
        grep -qw runsc && return 0
    have runsc || install_packages runsc
    local settings=/etc/docker/daemon.json wanted _
    wanted='{"runtimes": {"runsc": {"path": "'$(command -v runsc)'", '
    wanted+='"runtimeArgs": ["--platform=ptrace", "--network=none"]}}}'
    if [ "$(id -u)" -ne 0 ] || [ ! -e "$OWN_ENGINE" ] || [ -e "$settings" ]; then
        die "the container engine does not know the runtime runsc" \
            "merge this into $settings, then send dockerd SIGHUP: $wanted"
    fi
    say "registering gVisor with the container engine"
    mkdir -p /etc/docker
    printf '%s\n' "$wanted" >"$settings"
    kill -HUP "$(cat /run/docker.pid)"
    for _ in $(seq 50); do
        docker info --format '{{range $name, $_ := .Runtimes}}{{$name}} {{end}}' |
            grep -qw runsc && return 0
        sleep 0.1
    done
    die "the container engine did not take up the runtime runsc" "see /var/log/dockerd.log"
}

# Makes sure that a Redis for tests answers on 127.0.0.1:6379: an existing one, or one started here
# with its data under $1. REDIS_PID_FILE names the pid file of a Redis started here, and is empty
# otherwise.
REDIS_PID_FILE=
ensure_redis() {
    local dir=$1 _
    [ "$(redis-cli -h 127.0.0.1 ping 2>/dev/null)" = PONG ] && return 0
    mkdir -p "$dir"
    say "starting redis-server on 127.0.0.1:6379 (data: $dir)"
    REDIS_PID_FILE=$dir/redis.pid
    redis-server --bind 127.0.0.1 --port 6379 --dir "$dir" --pidfile "$REDIS_PID_FILE" \
        --logfile "$dir/redis.log" --daemonize yes --appendonly no --save '' \
        --maxmemory-policy noeviction \
        --proto-max-bulk-len 64mb --client-query-buffer-limit 128mb --maxmemory-clients 256mb >&2
    for _ in $(seq 100); do
        [ "$(redis-cli -h 127.0.0.1 ping 2>/dev/null)" = PONG ] && return 0
        sleep 0.1
    done
    die "redis-server did not answer within ten seconds" "see $dir/redis.log"
}
