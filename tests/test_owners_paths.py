"""Whose a control group is, from its path alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import host_at, write_tree

from telemetryd.config import host_of, load
from telemetryd.host import Ownership
from telemetryd.owners import CPU, Owner, of_process, owner_of, user_of

ID = "4c01db0b339c9c1ea0e6c5c8f9b9e6a7d3f2b1a09876543210fedcba98765432"
SHORT = "4c01db0b339c"
UID = "d1c3a5e2-6f0b-4c2e-9a51-0e6b8b7f4c11"
SYSTEMD_UID = UID.replace("-", "_")
STATIC = "5f1d1a7c9e0b4d3a8c6e2f4b1a0d9c8e"
USER = "/user.slice/user-1000.slice"


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        # Slurm
        ("/slurm/uid_1000/job_7/step_0/task_3", "job", "7"),
        ("/slurm_node1/uid_0/job_123456", "job", "123456"),
        ("/site/uid_1000/job_7", "job", "7"),  # CgroupPrepend
        ("/system.slice/slurmstepd.scope/job_7/step_batch/user/task_special", "job", "7"),
        ("/system.slice/node1_slurmstepd.scope/job_7/step_0/slurm", "job", "7"),
        ("/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_0/user", "job", "s5K1KKYAYG5D00"),
        ("/system.slice/slurmstepd.scope/system", "unit", "slurmstepd.scope"),
        ("/system.slice/slurmd.service", "unit", "slurmd.service"),
        # Kubernetes, both drivers
        (f"/kubepods.slice/kubepods-pod{SYSTEMD_UID}.slice", "pod", UID),
        (
            (
                "/kubepods.slice/kubepods-burstable.slice/"
                f"kubepods-burstable-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope"
            ),
            "pod",
            UID,
        ),
        (
            (
                "/kubepods.slice/kubepods-besteffort.slice/"
                f"kubepods-besteffort-pod{SYSTEMD_UID}.slice/crio-conmon-{ID}.scope"
            ),
            "pod",
            UID,
        ),
        (f"/kubepods/besteffort/pod{UID}/{ID}", "pod", UID),
        (f"/kubepods/pod{STATIC}/{ID}", "pod", STATIC),
        (
            (
                f"/system.slice/docker-{ID}.scope/kubelet.slice/kubelet-kubepods.slice/"
                f"kubelet-kubepods-pod{SYSTEMD_UID}.slice/cri-containerd-{'0' * 64}.scope"
            ),
            "pod",
            UID,
        ),
        (
            (
                "/system.slice/containerd.service/"
                f"kubepods-besteffort-pod{SYSTEMD_UID}.slice:cri-containerd:{ID}"
            ),
            "pod",
            UID,
        ),
        (
            (
                f"/kubepods.slice/kubepods-pod{SYSTEMD_UID}.slice/cri-containerd-{ID}.scope/"
                "system.slice/slurmstepd.scope/job_7/step_0"
            ),
            "job",
            "7",
        ),
        # containers
        (f"/docker/{ID}", "container", SHORT),
        (f"/docker/{ID}/docker/{'0' * 64}", "container", SHORT),
        (f"/system.slice/docker-{ID}.scope/init.scope", "container", SHORT),
        (f"/machine.slice/libpod-{ID}.scope/container", "container", SHORT),
        (f"/libpod_parent/libpod-{ID}", "container", SHORT),
        (f"{USER}/user@1000.service/user.slice/libpod-{ID}.scope", "container", SHORT),
        (f"/system.slice/web.service/libpod-payload-{ID}", "container", SHORT),
        (f"/system.slice/nerdctl-{ID}.scope", "container", SHORT),
        (f"/default/{ID}", "container", SHORT),
        (f"/system.slice/cri-containerd-{ID}.scope", "container", SHORT),
        (f"/system.slice/crio-{ID}.scope", "container", SHORT),
        (f"/system.slice:docker:{ID}", "container", SHORT),
        ("/lxc.payload.web/system.slice/nginx.service", "container", "web"),
        ("/lxc/100/ns", "container", "100"),
        # what monitors a container is none of it
        (f"{USER}/user@1000.service/user.slice/libpod-conmon-{ID}.scope", "unit", USER[12:]),
        (f"/system.slice/web.service/libpod-conmon-{ID}.scope", "unit", "web.service"),
        # systemd
        ("/init.scope", "unit", "init.scope"),
        ("/system.slice/nginx.service", "unit", "nginx.service"),
        ("/system.slice/nginx.service/worker/1", "unit", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "unit", "getty@tty1.service"),
        ("/system.slice/home.mount", "unit", "home.mount"),
        ("/system.slice/_cpu.service", "unit", "cpu.service"),
        (f"{USER}", "unit", "user-1000.slice"),
        (f"{USER}/session-3.scope", "unit", "user-1000.slice"),
        (f"{USER}/user@1000.service/app.slice/dbus.service", "unit", "user-1000.slice"),
        (
            r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator",
            "unit",
            r"machine-qemu\x2d1\x2dvm.scope",
        ),
        ("/../../system.slice/nginx.service", "unit", "nginx.service"),
        ("system.slice/nginx.service", "unit", "nginx.service"),
    ],
)
def test_a_path_tells_its_owner(path: str, kind: str, name: str) -> None:
    assert owner_of(path) is Owner(kind, name)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/..", "/system.slice", "/user.slice", "/machine.slice", "/kubepods/burstable"),
        *("/kubepods.slice/kubepods-burstable.slice", "/slurm/uid_1000", "/docker", "/lxc"),
        *("/slurm/uid_1000/job_", "/slurm/uid_1000/job_7x", "/job_7", "/kubepods/pod1", "/a/b"),
        f"/docker/{ID[:-1]}",
        f"/docker/{ID}0",
        f"/docker/{ID.upper()}",
        f"/machine.slice/libpod-conmon-{ID}.scope",
        f"/system.slice/crio-conmon-{ID}.scope",
        f"/pod{UID}",
        "/slurm/uid_1000/job_٧",
    ],
)
def test_what_is_nobodys_has_no_owner(path: str) -> None:
    assert owner_of(path) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/slurm/uid_1000/job_7/step_0/task_3", "7.0"),
        ("/slurm/uid_1000/job_7", "7"),
        ("/system.slice/slurmstepd.scope/job_7/step_batch/user", "7.batch"),
        ("/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_0", "s5K1KKYAYG5D00.0"),
    ],
)
def test_steps_of_a_job_are_owners_where_they_are_asked_for(path: str, name: str) -> None:
    assert owner_of(path, steps=True) is Owner("job", name)


def test_a_user_cannot_make_groups_that_count_as_somebody_elses_job() -> None:
    path = f"{USER}/user@1000.service/slurmstepd.scope/job_7"
    assert owner_of(path) is Owner("unit", "user-1000.slice")


def test_an_owner_is_one_object_and_cannot_change() -> None:
    assert Owner("job", "7") is Owner("job", "7")
    assert Owner("job", "7") is not Owner("job", "8")
    with pytest.raises(AttributeError):
        Owner("job", "7").name = "8"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "user"),
    [
        ("/slurm/uid_1000/job_7", "1000"),
        (f"{USER}/user@1000.service/user.slice/libpod-{ID}.scope", "1000"),
        ("sys/fs/cgroup/user.slice/user-0.slice", "0"),
        ("/system.slice/nginx.service", ""),
    ],
)
def test_the_user_is_told_where_the_path_has_one(path: str, user: str) -> None:
    assert user_of(path) == user


@given(st.text(), st.booleans())
def test_no_text_is_too_strange(path: str, steps: bool) -> None:
    owner = owner_of(path, steps=steps)
    assert owner is None or owner.name


_PARTS = st.sampled_from(
    [
        *("kubepods", "pod", UID, SYSTEMD_UID, ID, "docker-", ".scope", ".slice", "/", "/", "-"),
        *(
            "slurmstepd.scope",
            "uid_1",
            "job_7",
            "step_0",
            "user-1",
            "conmon-",
            "\n",
            "\udcff",
            "..",
        ),
    ]
)


@given(st.lists(_PARTS, max_size=12), st.booleans())
def test_pieces_of_paths_in_any_order_give_an_owner_that_can_be_a_label(
    parts: list[str], steps: bool
) -> None:
    owner = owner_of("".join(parts), steps=steps)
    if owner is not None:
        CPU.at(owner.kind, owner.name).labels[1].encode()


@given(st.binary())
def test_no_file_of_a_process_is_too_strange(tmp_path_factory: object, data: bytes) -> None:
    root = tmp_path_factory.mktemp("proc")  # type: ignore[attr-defined]
    write_tree(root, {"proc/1/cgroup": data})
    of_process(host_at(root), 1)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("0::/system.slice/nginx.service\n", Owner("unit", "nginx.service")),
        ("0::/system.slice/nginx.service (deleted)\n", Owner("unit", "nginx.service")),
        ("0::/\n", None),
        # Slurm with but some of its plugins on version 1, and systemd's own hierarchy
        (
            (
                "9:freezer:/slurm/uid_1000/job_7/step_0\n4:cpu,cpuacct:/\n"
                "1:name=systemd:/system.slice/slurmd.service\n0::/system.slice/slurmd.service\n"
            ),
            Owner("job", "7"),
        ),
        (f"4:memory:/docker/{ID}\n1:name=systemd:/a:b/{ID}\n", Owner("container", SHORT)),
    ],
)
def test_a_process_belongs_to_the_most_telling_of_its_hierarchies(
    tmp_path: Path, text: str, owner: Owner | None
) -> None:
    write_tree(tmp_path, {"proc/42/cgroup": text})
    assert of_process(host_at(tmp_path), 42) is owner


STEP = "0::/system.slice/slurmstepd.scope/job_7/step_1/user\n"


def _stat(command: str, flags: int = 0x0040_0000) -> str:
    return f"42 ({command}) S 1 1 1 0 -1 {flags} {' '.join(['0'] * 43)}\n"


@pytest.mark.parametrize(("steps", "name"), [(False, "7"), (True, "7.1")])
def test_a_process_belongs_to_its_step_where_the_host_says_so(
    tmp_path: Path, steps: bool, name: str
) -> None:
    write_tree(tmp_path, {"proc/42/cgroup": STEP})
    host = replace(host_at(tmp_path), ownership=Ownership(slurm_steps=steps))
    assert of_process(host, 42) is Owner("job", name)


@pytest.mark.parametrize(
    ("command", "flags", "owner"),
    [
        ("python3", 0x0040_0000, Owner("process", "python3")),
        ("a ) (b", 0x0040_0000, Owner("process", "a ) (b")),
        ("bash", 0x0040_0000, Owner("job", "7")),
        ("pythonic/0", 0x0020_8040, Owner("job", "7")),
        ("", 0x0040_0000, Owner("job", "7")),
    ],
)
def test_a_process_whose_command_fits_a_pattern_belongs_to_that_and_the_kernels_threads_do_not(
    tmp_path: Path, command: str, flags: int, owner: Owner
) -> None:
    write_tree(tmp_path, {"proc/42/cgroup": STEP, "proc/42/stat": _stat(command, flags)})
    ownership = Ownership(commands=("python*", "a )*", ""))
    assert of_process(replace(host_at(tmp_path), ownership=ownership), 42) is owner


def test_a_stat_that_is_cut_short_tells_nothing(tmp_path: Path) -> None:
    write_tree(tmp_path, {"proc/42/cgroup": STEP, "proc/42/stat": "42 (python3) S 1 1\n"})
    host = replace(host_at(tmp_path), ownership=Ownership(commands=("python*",)))
    with pytest.raises(ValueError, match="too short"):
        of_process(host, 42)


def test_who_owns_what_is_told_of_the_whole_machine(tmp_path: Path) -> None:
    file = tmp_path / "telemetryd.toml"
    file.write_text('[host]\nslurm_steps = true\ncommands = ["python*"]\n')
    host = host_of(load([str(file)], {}).host)
    assert host.ownership == Ownership(("python*",), True)
    assert host != host_of(load([], {}).host)  # a reload opens all collectors anew


def test_a_process_that_is_gone_is_nobodys(tmp_path: Path) -> None:
    assert of_process(host_at(tmp_path), 42) is None
