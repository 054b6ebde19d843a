"""The option discard: what is freed leaves the image."""
import os
import time

from harness import case, check, file_hash, run


def taken(image):
    return os.stat(image).st_blocks * 512


@case()
def discard_gives_space_back(scratch):
    """64 MiB are written and removed; the image gets smaller while it is mounted, and again at unmount."""
    volume = scratch.volume("256M")
    root = volume.mount(extra=("discard",))
    kept, gone, last = root / "kept", root / "gone", root / "last"
    kept.write_bytes(os.urandom(4 << 20))
    before = file_hash(kept)
    for file in (gone, last):
        file.write_bytes(os.urandom(64 << 20))
    run("sync", "-f", root)
    full = taken(volume.image)
    gone.unlink()
    run("sync", "-f", root)
    end = time.monotonic() + 60
    while taken(volume.image) > full - (60 << 20) and time.monotonic() < end:
        run("sync", "-f", root)
        time.sleep(0.1)
    smaller = taken(volume.image)
    check(smaller <= full - (60 << 20), f"the image took {full} bytes, and after a removal {smaller}")
    stats = volume.stats()["volume"]
    check(stats["discarded_bytes"] >= 60 << 20, f"discarded_bytes: {stats['discarded_bytes']}")
    check(stats["discard_errors"] == 0, f"discard_errors: {stats['discard_errors']}")
    last.unlink()
    volume.umount()
    check(taken(volume.image) <= smaller - (60 << 20), "an unmount right after a removal discarded nothing")
    volume.fsck()
    root = volume.mount(extra=("ro",))
    check(file_hash(root / "kept") == before, "a file that was not removed has changed")
    volume.umount()


@case()
def without_discard_the_image_keeps_its_size(scratch):
    volume = scratch.volume("256M")
    root = volume.mount()
    (root / "gone").write_bytes(os.urandom(64 << 20))
    run("sync", "-f", root)
    full = taken(volume.image)
    (root / "gone").unlink()
    volume.umount()
    check(taken(volume.image) >= full - (1 << 20), "blocks left the image though nobody asked for it")
    volume.fsck()
