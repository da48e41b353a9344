#!/usr/bin/env bash
# Runs in the guest of scripts/test-cgroup2: starts the engine and Redis, and runs the suites.
set -euo pipefail

# Prints the value of sandhog.NAME on the kernel's command line.
told() {
    sed -n "s/.* sandhog\.$1=\([^ ]*\).*/\1/p" /proc/cmdline
}

run_suites() {
    local suite failed=0 tests
    IFS=, read -ra tests <<<"$(told tests)"
    # Skipped: under gVisor the cells have no cgroups, and one image needs a network for its build,
    # which the guest does not have.
    local skipped=(--skip gvisor --skip a_runtime_whose --skip a_wall_that_is_left_out)
    skipped+=(--skip engine::images)
    for suite in sandbox hostile; do
        "/mnt/debug/deps/$suite" --color never --test-threads 1 "${skipped[@]}" "${tests[@]}" ||
            failed=$?
    done
    return "$failed"
}

trap 'printf "==> the tests ended with %s\n" "$?"' EXIT
export HOME=/root
[ "$(stat --file-system --format %T /sys/fs/cgroup)" = cgroup2fs ]
checkout=$(told checkout)
mkdir -p "$checkout"
mount --bind /mnt/checkout "$checkout"
printf '{"exec-opts": ["native.cgroupdriver=%s"], "storage-driver": "overlay2"}\n' \
    "$(told driver)" >/etc/docker/daemon.json
systemctl start docker
redis-server --daemonize yes --save '' --appendonly no --proto-max-bulk-len 64mb >/dev/null
docker info --format '==> engine {{.ServerVersion}}, cgroup version {{.CgroupVersion}} by '\
'{{.CgroupDriver}}, kernel {{.KernelVersion}}'
cd "$checkout/tests"
run_suites
