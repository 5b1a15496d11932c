"""Which service gets which neighbours. Each is made when it is first asked for: a verb imports what it uses and nothing else."""

from __future__ import annotations

import os

from sampan.store.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.engine.background import Background
    from sampan.engine.config import Config
    from sampan.steps.trace import Trace
    from sampan.store.volumes import VolumeRecord

_LATER_SECONDS = 10.0
"""How long a process that was told to end goes on with what it has to delete; the next command does the rest."""


class Wiring:
    """Who gets whom. A name that is asked for is made by the method `_name` and kept.

    Two threads may make the same service at once. All get the one that was made first, for some hold something: a launcher its line to the zygote.
    """

    def __init__(self, settings: Config, trace: Trace, notify: Callable[[str], None]) -> None:
        self.settings = settings
        self.trace = trace
        self.notify = notify
        self.attended = False
        """Whether this process lives long and starts much: it has a zygote then, and deletes when it has answered."""
        self.later: Background | None = None  # a command ends, and what it has begun is done by then
        self.layout = Layout(settings.root, settings.run_root)
        self.layout.make(trace)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return vars(self).setdefault(name, getattr(self, f"_{name}")())

    def attend(self) -> None:
        """From here on the process is one that lives long. What it does later exists once, whichever thread has the first job."""
        from sampan.engine.background import Background

        self.attended = True
        self.later = Background()

    def close(self) -> None:
        """Finish what only an attended engine has between calls: what it does later, and the line to its zygote."""
        if self.later is not None:
            self.later.wait(_LATER_SECONDS)
        if self.attended and "launcher" in vars(self):  # also of a build that has a zygote, and is a command otherwise
            self.launcher.close()

    def _records(self) -> Any:
        from sampan.store.records import Records

        return Records(self.layout, self.trace)

    def _events(self) -> Any:
        from sampan.engine.events import Events

        return Events(self.layout.root, self.layout.journal, self.settings.events_size, self.trace, self.notify)

    def _event_reader(self) -> Any:
        from sampan.engine.eventreader import EventReader
        from sampan.store.journal import Journal

        return EventReader(Journal(self.layout.journal), self.records)

    def _cgroups(self) -> Any:
        from sampan.kernel.cgroup import detect

        return detect()

    def _snapshots(self) -> Any:
        from sampan.engine.snapshots import Snapshots

        return Snapshots(self.layout, self.settings.snapshotter, self.trace)

    def _images(self) -> Any:
        from sampan.engine.images import Images
        from sampan.engine.users import ImageUsers
        from sampan.store.content import ContentStore
        from sampan.store.images import ImageNames, StoreLock

        layout, trace = self.layout, self.trace
        content, names = ContentStore(layout.content, trace), ImageNames(layout.images, trace)
        users = ImageUsers(self.records, self.settler, lambda: self.build_cache)
        lock = StoreLock(layout.images_lock)
        return Images(
            *(content, names, self.snapshots.layers, lock, users, self.events, trace, self.notify),
            lambda: self.registries,
        )

    def _registries(self) -> Any:
        from sampan.engine.registries import Registries

        return Registries(self.settings)

    def _volumes(self) -> Any:
        from sampan.engine.volumemounts import VolumeMounts
        from sampan.engine.volumes import Volumes
        from sampan.engine.volumeusers import VolumeUsers
        from sampan.store.volumes import VolumeLock, VolumeStore

        directory, users = self.layout.volumes, VolumeUsers(self.records)
        mounts = VolumeMounts(directory, self.layout.mounted_volumes, users, self.trace)
        store, lock = VolumeStore(directory, self.trace), VolumeLock(self.layout.volumes_lock)
        return Volumes(store, lock, users, mounts, self.events)

    def _network_store(self) -> Any:
        from sampan.store.networks import Networks

        return Networks(self.layout, self.trace)

    def _members(self) -> Any:
        from sampan.engine.networkmembers import Members

        return Members(self.network_store, self.records)

    def _networks(self) -> Any:
        from sampan.engine.networks import Networks, host_routes

        store = self.network_store
        others = (lambda: self.members, self.records, lambda: self.connections, lambda: self.connector)
        return Networks(self.layout, store, *others, host_routes, self.events)

    def _connections(self) -> Any:
        from sampan.engine.connections import Connections

        neighbours = (lambda: self.networks, lambda: self.connector)
        return Connections(self.records, self.settler, *neighbours, self.events)

    def _connector(self) -> Any:
        from sampan.engine.connecting import Connector
        from sampan.runtime.launcher import spawn_apart
        from sampan.runtime.sealed import interpreter

        store, networks = self.network_store, self.networks
        hands = (spawn_apart, interpreter())
        return Connector(
            self.layout, store, self.records, networks, lambda: self.members, *hands, self.notify, self.trace
        )

    def _settler(self) -> Any:
        from sampan.engine.settle import Settler

        return Settler(
            self.records,
            self.snapshots,
            self.cgroups,
            lambda: self.volumes,
            lambda: self.images,
            lambda: self.connector,
            self._revive,
            lambda: self.events,
            self.trace,
            self.later,
        )

    def _reaper(self, container_id: str) -> tuple[str, ...]:
        from sampan.engine.reaper import command

        roots, settings = (self.layout.root, self.layout.run_root), self.settings
        return command(roots, container_id, settings.init_path, settings.events_size)

    def _revive(self, container_id: str, number: int) -> None:
        from sampan.engine.reaper import revive

        revive(self._reaper(container_id), number)

    def _janitor(self) -> Any:
        from sampan.engine.reconcile import Janitor

        return Janitor(
            self.layout,
            self.records,
            self.settler,
            self.snapshots,
            lambda: self.volumes,
            lambda: self.remover,
            self.trace,
        )

    def _creator(self) -> Any:
        from sampan.engine.create import Creator

        return Creator(
            self.records,
            self.images,
            self.snapshots,
            self.cgroups,
            self.janitor,
            lambda: self.mounts,
            lambda: self.filters,
            lambda: self.networks,
            self.settings,
            self.trace,
        )

    def _mounts(self) -> Any:
        from sampan.engine.mounts import Mounts

        return Mounts(self.records, self.images, self.volumes, self.trace)

    def _launcher(self) -> Any:
        # Apart from the starter, whose modules are imported while the shim's interpreter comes up already.
        from sampan.runtime.launcher import ExecLauncher

        launcher = ExecLauncher(self.trace)
        if not self.attended and not os.path.isdir(self.layout.zygote):
            return launcher
        from sampan.runtime.zygotes import ZygoteLauncher

        return ZygoteLauncher(self.layout.zygote, launcher, self.trace, self.attended)

    def _warmth(self) -> Any:
        from sampan.runtime.zygotes import Zygotes

        return Zygotes(self.layout.zygote)

    def _starter(self) -> Any:
        from sampan.engine.start import Starter

        init = self.settings.init_path
        return Starter(
            self.records,
            self.snapshots,
            self.cgroups,
            self.launcher,
            self.settler,
            lambda: self.volumes,
            lambda: self.connector,
            self.filters,
            self._reaper,
            init,
            self.events,
            self.trace,
        )

    def _stopper(self) -> Any:
        from sampan.engine.stop import Stopper

        return Stopper(self.records, self.settler, self.cgroups, self.events, self.trace)

    def _restarter(self) -> Any:
        from sampan.engine.restart import Restarter

        return Restarter(self.settler, self.stopper, self.starter, self.events)

    def _pauser(self) -> Any:
        from sampan.engine.pause import Pauser

        return Pauser(self.records, self.settler, self.cgroups, self.events, self.trace)

    def _remover(self) -> Any:
        from sampan.engine.remove import Remover

        return Remover(self.records, self.settler, self.stopper)

    def _renamer(self) -> Any:
        from sampan.engine.rename import Renamer

        return Renamer(self.records, lambda: self.connector, self.events)

    def _booter(self) -> Any:
        from sampan.engine.boot import Booter
        from sampan.engine.container import Container

        return Booter(self.records, self.janitor, self.settler, self.starter, lambda record: Container(self, record))

    def _updater(self) -> Any:
        from sampan.engine.update import Updater

        return Updater(self.records, self.settler, self.cgroups, self.events, self.trace)

    def _executor(self) -> Any:
        from sampan.engine.exec import Executor

        return Executor(self.records, self.settler, self.cgroups, self.filters, lambda: self.connector, self.events)

    def _filters(self) -> Any:
        from sampan.runtime.filters import Filters

        return Filters(self.layout.filters)

    def _auditor(self) -> Any:
        from sampan.engine.audit import Auditor

        return Auditor(self.settler, self.cgroups, self.filters)

    def _logs(self) -> Any:
        from sampan.engine.logs import LogReader

        return LogReader(self.records, self.settler, self.notify)

    def _stats(self) -> Any:
        from sampan.engine.stats import StatsReader

        return StatsReader(self.records, self.settler, self.cgroups)

    def _lister(self) -> Any:
        from sampan.engine.top import ProcessLister

        return ProcessLister(self.settler, self.cgroups, self.events)

    def _committer(self) -> Any:
        from sampan.engine.commit import Committer
        from sampan.store.content import ContentStore
        from sampan.store.images import StoreLock

        content, lock = ContentStore(self.layout.content, self.trace), StoreLock(self.layout.images_lock)
        return Committer(
            self.records,
            self.settler,
            self.snapshots,
            content,
            lock,
            self.images,
            self.cgroups,
            self.events,
            self.trace,
        )

    def _exporter(self) -> Any:
        from sampan.engine.export import Exporter

        return Exporter(self.records, self.settler, self.snapshots, self.events)

    def _archives(self) -> Any:
        from sampan.engine.archive import Archives
        from sampan.engine.containerroots import ContainerRoots

        roots = ContainerRoots(self.records, self.settler, self.snapshots, lambda: self.volumes, self.trace)
        return Archives(roots, self.events)

    def _copier(self) -> Any:
        from sampan.engine.copying import Copier

        return Copier(self.archives)

    def _builds(self) -> Any:
        from sampan.engine.builds import Builds

        return Builds(lambda: self.builder, lambda: self.build_pruner)

    def _build_pruner(self) -> Any:
        from sampan.engine.buildprune import BuildPruner
        from sampan.store.cachemounts import CacheMounts
        from sampan.store.content import ContentStore
        from sampan.store.images import ImageNames, StoreLock

        layout, trace = self.layout, self.trace
        content, names = ContentStore(layout.content, trace), ImageNames(layout.images, trace)
        lock = StoreLock(layout.images_lock)
        mounts = CacheMounts(layout.build_mounts, trace)
        return BuildPruner(self.build_cache, mounts, content, names, self.snapshots.layers, lock, self.images)

    def _builder(self) -> Any:
        from sampan.engine.builder import Builder
        from sampan.engine.buildmounts import Workplaces
        from sampan.store.cachemounts import CacheMounts
        from sampan.store.images import StoreLock

        layout, trace = self.layout, self.trace
        lock = StoreLock(layout.images_lock)

        def begin() -> Any:
            # A zygote may be on its way by now, and comes up while these are imported.
            from sampan.engine.buildsteps import Steps
            from sampan.engine.containerroots import ContainerRoots
            from sampan.engine.containers import Containers
            from sampan.store.content import ContentStore

            roots = ContainerRoots(self.records, self.settler, self.snapshots, lambda: self.volumes, trace)
            content, cache = ContentStore(layout.content, trace), self.build_cache
            return Steps(Containers(self), self.records, roots, self.snapshots, content, lock, self.images, cache)

        caches = CacheMounts(layout.build_mounts, trace)
        workplaces = Workplaces(layout.build_work, layout.build_secrets, caches, trace)

        def attend(now: bool) -> None:
            self.attended = True
            if now:
                self.launcher.prepare()

        return Builder(begin, self.images, lock, self.janitor, workplaces, attend, lambda: self.registries)

    def _build_cache(self) -> Any:
        from sampan.store.buildcache import BuildCache

        return BuildCache(self.layout.build_cache, self.trace)

    def _inspector(self) -> Any:
        from sampan.engine.inspect import Inspector

        return Inspector(self.records, self.snapshots, lambda: self.network_store, self.layout.root)

    def _pruner(self) -> Any:
        from sampan.engine.prune import Pruner

        return Pruner(
            self.records,
            self.janitor,
            self.space,
            self.remover,
            lambda: self.networks,
            lambda: self.images,
            lambda: self.volumes,
            lambda: self.build_pruner,
            self.events,
        )

    def _space(self) -> Any:
        from sampan.engine.space import Space

        return Space(self.layout)

    def _usage(self) -> Any:
        from sampan.engine.usage import Usage
        from sampan.store.content import ContentStore
        from sampan.store.images import ImageNames
        from sampan.store.volumes import VolumeStore

        layout, trace = self.layout, self.trace
        names, content = ImageNames(layout.images, trace), ContentStore(layout.content, trace)
        volumes = VolumeStore(layout.volumes, trace)
        layers = self.snapshots.layers
        looks = (self.records, self.janitor, self.inspector)
        return Usage(
            *looks, self.images, names, content, layers, volumes, self.space, lambda: self.build_pruner.items()
        )

    def _checker(self) -> Any:
        from sampan.engine.check import Checker
        from sampan.engine.checkcontainers import ContainerCheck
        from sampan.engine.checkimages import ImageCheck
        from sampan.engine.checknetworks import NetworkCheck
        from sampan.engine.volumeusers import VolumeUsers
        from sampan.store.content import ContentStore
        from sampan.store.copyup import CopyUp
        from sampan.store.images import ImageNames, StoreLock
        from sampan.store.staging import Staging
        from sampan.store.volumes import VolumeStore

        layout, trace, records = self.layout, self.trace, self.records
        containers = ContainerCheck(
            layout, records, self.settler, self.janitor, self.snapshots, self.cgroups, self.settings.cgroup_parent
        )
        content, names = ContentStore(layout.content, trace), ImageNames(layout.images, trace)
        staging = (Staging(layout.layers, trace), Staging(layout.snapshots, trace))
        lock = StoreLock(layout.images_lock)
        images = ImageCheck(
            layout, content, names, self.images, self.snapshots.layers, staging, lock, records, self.build_cache.roots
        )
        volumes = VolumeStore(layout.volumes, trace)

        def copy_of(volume: VolumeRecord) -> CopyUp:
            return CopyUp(volume.path, bool(volume.options), trace)

        networks = NetworkCheck(self.network_store, self.members, records, lambda: self.connector)
        return Checker(layout, containers, networks, images, self.volumes, volumes, VolumeUsers(records), copy_of)

    def _system(self) -> Any:
        from sampan.engine.system import System

        return System(
            self.layout,
            self.records,
            self.janitor,
            self.images,
            self.cgroups,
            self.settings,
            self.snapshots.name,
            lambda: self.usage,
            lambda: self.pruner,
            lambda: self.checker,
            lambda: self.warmth,
        )
