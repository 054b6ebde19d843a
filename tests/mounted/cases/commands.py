"""mkfs, mount, umount, fsck as an administrator meets them."""
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import threading

from harness import COMMANDS, case, check, image_hash, ourfs, run, seeded_random, wait_gone, SANITIZED
import harness


def one_line(done, *words):
    check(done.returncode != 0, f"{done.args} succeeded")
    lines = [l for l in done.stderr.splitlines() if l.strip()]
    check(len(lines) == 1, f"{done.args}: not one line on stderr: {lines}")
    for word in words:
        check(word.lower() in lines[0].lower(), f"{done.args}: '{lines[0]}' does not say '{word}'")


@case()
def bad_input_gets_one_clear_line(scratch):
    target = scratch.path / "target"
    target.mkdir()
    good = scratch.volume("64M", name="good").image

    def refused(name, content, *words):
        image = scratch.path / name
        image.write_bytes(content)
        before = image_hash(image)
        for command in (("mount.ourfs", image, target), ("fsck.ourfs", "-n", image)):
            one_line(ourfs(*command, ok=None), *words)
        check(image_hash(image) == before, f"{name}: a refused image was changed")
        check(not os.path.ismount(target), f"{name}: mounted")

    refused("empty", b"")
    refused("random", os.urandom(1 << 20), "not an ourfs volume")
    whole = good.read_bytes()
    refused("truncated", whole[: 20 << 20], "truncated")
    refused("newer", patched(whole, version=99), "newer")
    refused("incompat", patched(whole, incompat=1 << 40), "incompat")

    file = scratch.path / "plain-file"
    file.write_text("x")
    one_line(ourfs("mount.ourfs", good, file, ok=None), "directory")
    one_line(ourfs("mount.ourfs", good, scratch.path / "missing", ok=None))
    one_line(ourfs("mount.ourfs", scratch.path / "no-image", target, ok=None), "no such file")
    done = ourfs("mount.ourfs", good, target, "-o", "nonsense=1", ok=None)
    one_line(done, "nonsense")
    check(done.returncode == 1, f"unknown option: exit code {done.returncode}, mount(8) says 1")
    one_line(ourfs("mkfs.ourfs", scratch.path / "tiny.img", "1M", ok=None), "32 MiB")
    check(not (scratch.path / "tiny.img").exists(), "mkfs left an image that it refused to make")
    one_line(ourfs("mkfs.ourfs", "-b", "3000", scratch.path / "odd.img", "64M", ok=None), "block size")
    one_line(ourfs("mkfs.ourfs", good, ok=None), "--force")

    # A file that cannot be written to: root may ignore its mode, but not a read-only mount.
    shelf = scratch.path / "shelf"
    shelf.mkdir()
    shutil.copy(good, shelf / "image")
    run("mount", "--bind", shelf, shelf)
    try:
        run("mount", "-o", "remount,ro,bind", shelf)
        before = image_hash(shelf / "image")
        one_line(ourfs("mount.ourfs", shelf / "image", target, ok=None), "read-only", "-o ro")
        one_line(ourfs("fsck.ourfs", "-y", shelf / "image", ok=None), "read-only")
        check(not os.path.ismount(target), "a read-only file was mounted rw")
        check(image_hash(shelf / "image") == before, "a read-only file was changed")
    finally:
        run("umount", shelf)

    volume = harness.Volume(scratch, good, ())
    volume.mount()
    one_line(ourfs("mount.ourfs", good, target, ok=None), "in use")
    one_line(ourfs("mkfs.ourfs", "--force", good, ok=None), "in use")
    one_line(ourfs("fsck.ourfs", "-y", good, ok=None), "in use")
    volume.umount()

    foreign = scratch.path / "xfs.img"
    with open(foreign, "wb") as f:
        f.truncate(400 << 20)
    run("mkfs.xfs", "-q", foreign)
    before = image_hash(foreign)
    one_line(ourfs("mkfs.ourfs", foreign, ok=None), "xfs")
    check(image_hash(foreign) == before, "mkfs changed another filesystem")


def patched(whole, version=None, incompat=None):
    """A valid superblock with one field changed and the checksum made right: both slots."""
    import superblock
    return superblock.patch(whole, version=version, incompat=incompat)


@case()
def looking_changes_no_byte(scratch):
    """A read-only mount, norecovery and fsck -n leave an image that needs replay as it is."""
    volume = scratch.volume("128M")
    root = volume.mount()
    for i in range(300):
        (root / f"f{i}").write_bytes(b"z" * 5000)
    run("sync", "-f", root)
    volume.kill()
    before = image_hash(volume.image)
    volume.fsck("-n")
    check(image_hash(volume.image) == before, "fsck -n changed the image")
    root = volume.mount(extra=("ro",))
    check(len(list(root.iterdir())) == 300, "a read-only mount does not show what was synced")
    check((root / "f7").read_bytes() == b"z" * 5000, "a read-only mount shows other bytes")
    check(run("touch", root / "new", ok=None).returncode != 0, "a read-only mount took a new file")
    volume.umount()
    check(image_hash(volume.image) == before, "a read-only mount changed the image")
    volume.mount(extra=("ro", "norecovery"))
    volume.umount()
    check(image_hash(volume.image) == before, "a norecovery mount changed the image")
    volume.mount()
    volume.umount()
    volume.fsck()


def load(root, number):
    """Several writers at once, who stop just before the unmount; nothing is synced."""
    def write(writer):
        for i in range(15):
            (root / f"w{writer}-{i}").write_bytes(bytes([number % 256]) * (20000 * (1 + writer)))
            if i % 5 == writer:
                os.rename(root / f"w{writer}-{i}", root / f"w{writer}-renamed")
    writers = [threading.Thread(target=write, args=(w,)) for w in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


@case(smoke=True, seconds=20)
def umount_and_mount_in_a_loop(scratch):
    """200 times under load just before: never a failure, never a leftover process or lock."""
    volume = scratch.volume("256M")
    for number in range(20 if SANITIZED else 200):
        root = volume.mount()
        load(root, number)
        pid = volume.pid
        volume.umount()
        wait_gone(pid)
    volume.fsck()


@case(seconds=22)
def umount_and_mkfs_in_a_loop(scratch):
    volume = scratch.volume("64M")
    for number in range(200):
        root = volume.mount()
        load(root, number)
        pid = volume.pid
        volume.umount()
        ourfs("mkfs.ourfs", "--force", volume.image)
        wait_gone(pid)
    volume.fsck()


@case()
def sigterm_leaves_the_volume_clean(scratch):
    volume = scratch.volume("128M")
    root = volume.mount()
    (root / "file").write_bytes(b"t" * 100000)
    pid = volume.pid
    os.kill(pid, signal.SIGTERM)
    wait_gone(pid)
    check(not os.path.ismount(root), "still mounted after SIGTERM")
    out = ourfs("ourfs", "info", volume.image).stdout
    check("clean" in out.lower(), f"ourfs info does not say clean: {out}")
    volume.fsck()
    root = volume.mount()
    check((root / "file").read_bytes() == b"t" * 100000, "the file differs after SIGTERM")
    volume.umount()


@case()
def commands_tell_what_there_is(scratch):
    volume = scratch.volume("256M", mkfs=("-L", "photos"))
    out = ourfs("ourfs", "info", volume.image).stdout
    check("photos" in out, "ourfs info does not show the label")
    root = volume.mount()
    (root / "file").write_bytes(b"e" * (1 << 20))
    run("sync", "-f", root)
    extents = ourfs("ourfs", "extents", root / "file").stdout
    check("mapped" in extents.lower(), f"ourfs extents: {extents}")
    text = ourfs("ourfs", "stats", root).stdout
    check("stale_write" in text, "ourfs stats does not show stale_write")
    volume.stats()
    volume.umount()
    volume.fsck()
