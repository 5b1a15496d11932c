"""Steps that make a container's cgroups and limit them. Those that go there are in `joining`, for every exec has them and a monitor keeps them."""

from __future__ import annotations

from sampan.kernel import cgroupfs
from sampan.steps.base import Context, Step


class MakeCgroup(Step):
    """Make one directory of a hierarchy; one that exists is used."""

    usual = False
    path: str

    def describe(self) -> str:
        return f"mkdir {self.path}"

    def run(self, ctx: Context) -> None:
        cgroupfs.make_directory(self.path)


class WriteCgroup(Step):
    """Write one knob. `required` is False where a kernel may lack it and nobody asked for it by name. `unless_set`: what it says already stays."""

    usual = False
    path: str
    value: str
    required: bool = True
    unless_set: bool = False

    def describe(self) -> str:
        return f"write {self.value!r} to {self.path}" + (" unless it says something" if self.unless_set else "")

    def run(self, ctx: Context) -> None:
        if self.unless_set and cgroupfs.get(self.path):
            return
        cgroupfs.write(self.path, self.value, self.required)


class FilterDevices(Step):
    """cgroup v2: attach a program that decides which devices may be opened or made."""

    directory: str
    rules: tuple[tuple[bool, str, int, int, str], ...]

    def describe(self) -> str:
        return f"bpf: attach a device filter of {len(self.rules)} rules to {self.directory}"

    def run(self, ctx: Context) -> None:
        # Imported here for the memory of shims where there is no v2; where there is, it was preloaded (shim/__main__.py).
        from sampan.kernel import devicefilter
        from sampan.kernel.cgroupmodel import DeviceRule

        devicefilter.attach(self.directory, tuple(DeviceRule(*rule) for rule in self.rules))
