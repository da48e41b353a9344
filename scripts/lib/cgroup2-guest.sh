#!/usr/bin/env bash
# What scripts/test-cgroup2 has its guest do: start the engine and Redis, run the suites.
set -euo pipefail

# What was said of NAME in the kernel's line.
told() {
    sed -n "s/.* sandhog\.$1=\([^ ]*\).*/\1/p" /proc/cmdline
}

run_suites() {
    local suite failed=0 tests
    IFS=, read -ra tests <<<"$(told tests)"
    # What is under gVisor has no cgroups in its cells, and one image is built with a network that is not here.
    local skipped=(--skip gvisor --skip a_runtime_whose --skip a_wall_that_is_left_out --skip engine::images)
    for suite in sandbox hostile; do
        "/mnt/debug/deps/$suite" --color never --test-threads 1 "${skipped[@]}" "${tests[@]}" || failed=$?
    done
    return "$failed"
}

trap 'printf "==> the tests ended with %s\n" "$?"' EXIT
export HOME=/root
[ "$(stat --file-system --format %T /sys/fs/cgroup)" = cgroup2fs ]
checkout=$(told checkout)
mkdir -p "$checkout"
mount --bind /mnt/checkout "$checkout"
printf '{"exec-opts": ["native.cgroupdriver=%s"], "storage-driver": "overlay2"}\n' "$(told driver)" >/etc/docker/daemon.json
systemctl start docker
redis-server --daemonize yes --save '' --appendonly no --proto-max-bulk-len 64mb >/dev/null
docker info --format '==> engine {{.ServerVersion}}, cgroup version {{.CgroupVersion}} by {{.CgroupDriver}}, kernel {{.KernelVersion}}'
cd "$checkout/tests"
run_suites
