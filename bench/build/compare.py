#!/usr/bin/env python3
"""Builds Dockerfiles with `docker build` and with rcompose, and compares the images: file trees and configurations.

    compare.py --base ARCHIVE [--docker DOCKER] [--rcompose BINARY] [--only NAME]

DOCKER is the command to run (it may hold blanks); its daemon must have `busybox:latest`, and ARCHIVE is a docker-archive of it. The cases are in cases.py. A tree is
compared by path, type, mode, owner, content, link target and extended attributes; a configuration by everything that
containers see, and by its history. Times are not compared. Exit status 1 when something differs.
"""
import argparse, hashlib, io, json, os, shlex, shutil, subprocess, sys, tarfile, tempfile

from cases import CASES


def run(command, **kwargs):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **kwargs)


def write_context(folder, files):
    """A value is a file's text or bytes, `->TARGET` for a link, None for a folder; `PATH@MODE` sets a mode."""
    for name, content in files.items():
        name, _, mode = name.partition("@")
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if content is None:
            os.makedirs(path, exist_ok=True)
        elif isinstance(content, str) and content.startswith("->"):
            os.symlink(content[2:], path)
        elif isinstance(content, str) and content.startswith("=>"):
            os.link(os.path.join(folder, content[2:]), path)
        elif callable(content):
            with open(path, "wb") as file:
                file.write(content())
        else:
            with open(path, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
        if mode:
            os.chmod(path, int(mode, 8))


def image_of(archive):
    """The configuration and the merged tree of a docker archive."""
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        config = json.load(tar.extractfile(manifest["Config"]))
        tree = {}
        for layer in manifest["Layers"]:
            apply(tree, io.BytesIO(tar.extractfile(layer).read()))
        return config, tree


def apply(tree, layer):
    with tarfile.open(fileobj=layer) as tar:
        members = [(os.path.normpath("/" + m.name), m) for m in tar.getmembers()]
        for path, member in members:
            folder, name = os.path.split(path)
            if name == ".wh..wh..opq":
                for old in [p for p in tree if p.startswith(folder.rstrip("/") + "/")]:
                    del tree[old]
            elif name.startswith(".wh."):
                gone = os.path.join(folder, name[4:])
                for old in [p for p in tree if p == gone or p.startswith(gone + "/")]:
                    del tree[old]
        for path, member in members:
            if os.path.basename(path).startswith(".wh.") or path == "/":
                continue
            if path in tree and not (member.isdir() and tree[path]["type"] == "dir"):
                for old in [p for p in tree if p == path or p.startswith(path + "/")]:
                    del tree[old]
            if member.islnk():
                tree[path] = dict(tree[os.path.normpath("/" + member.linkname)])
                continue
            kind = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block",
                    tarfile.FIFOTYPE: "fifo"}.get(member.type, "file")
            entry = {"type": kind, "mode": oct(member.mode & 0o7777) if kind != "link" else "", "owner": (member.uid, member.gid)}
            if kind == "file":
                entry["content"] = hashlib.sha256(tar.extractfile(member).read()).hexdigest()
            if kind == "link":
                entry["target"] = member.linkname
            if kind in ("char", "block"):
                entry["device"] = (member.devmajor, member.devminor)
            xattrs = {k: v for k, v in member.pax_headers.items() if k.startswith("SCHILY.xattr.")}
            if xattrs:
                entry["xattrs"] = xattrs
            tree[path] = entry


def comparable(config):
    inner = {k: v for k, v in (config.get("config") or {}).items() if v not in (None, "", [], {}, False)}
    labels = {k: v for k, v in (inner.get("Labels") or {}).items() if not k.startswith("com.docker.compose.")}
    inner.pop("Labels", None)
    if labels:
        inner["Labels"] = labels
    # Docker's order of the ports of one EXPOSE is that of a hash table.
    ports = lambda text: f"EXPOSE {sorted(text.split())}" if (text or "").startswith("EXPOSE ") else text
    history = [(ports((h.get("created_by") or "").replace("[", "").replace("]", "")), bool(h.get("empty_layer"))) for h in config.get("history", [])]
    return {"os": config.get("os"), "architecture": config.get("architecture"), "author": config.get("author"),
            "config": inner, "history": history}


def differences(docker, ours):
    found = []
    (config_a, tree_a), (config_b, tree_b) = docker, ours
    a, b = comparable(config_a), comparable(config_b)
    for key in a:
        if a[key] == b[key]:
            continue
        if key == "history":
            for one, other in zip(a[key] + [None] * len(b[key]), b[key] + [None] * len(a[key])):
                if one != other:
                    found.append(f"history: docker {one}, rcompose {other}")
                if one is None and other is None:
                    break
        elif key == "config":
            for name in sorted(set(a[key]) | set(b[key])):
                if a[key].get(name) != b[key].get(name):
                    found.append(f"config.{name}: docker {a[key].get(name)}, rcompose {b[key].get(name)}")
        else:
            found.append(f"{key}: docker {a[key]}, rcompose {b[key]}")
    for path in sorted(set(tree_a) | set(tree_b)):
        if tree_a.get(path) != tree_b.get(path):
            found.append(f"{path}: docker {tree_a.get(path)}, rcompose {tree_b.get(path)}")
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--docker", default="docker")
    parser.add_argument("--rcompose", default="rcompose")
    parser.add_argument("--base", required=True, help="docker-archive of busybox:latest")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    docker = shlex.split(arguments.docker)
    work = tempfile.mkdtemp(prefix="build-compare-")
    environment = dict(os.environ, RCOMPOSE_ROOT=os.path.join(work, "root"))
    run([arguments.rcompose, "image", "load", "-i", arguments.base], env=environment)
    failed = 0
    try:
        for name, case in CASES.items():
            if arguments.only and arguments.only not in name:
                continue
            problems = compare(name, case, docker, arguments.rcompose, environment, work)
            print(("ok   " if not problems else "DIFF ") + name, flush=True)
            for problem in problems:
                print("     " + problem)
            failed += bool(problems)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{failed} of the cases differ" if failed else "no differences")
    return 1 if failed else 0


def compare(name, case, docker, rcompose, environment, work):
    folder = os.path.join(work, name)
    os.makedirs(folder)
    write_context(folder, case.get("files", {}))
    with open(os.path.join(folder, case.get("file", "Dockerfile")), "w") as file:
        file.write(case["dockerfile"])
    tag = f"build-compare-{name}"
    command = [*docker, "build", "-t", tag, "-f", os.path.join(folder, case.get("file", "Dockerfile"))]
    for key, value in case.get("args", {}).items():
        command += ["--build-arg", f"{key}={value}"]
    for key, value in case.get("contexts", {}).items():
        command += ["--build-context", f"{key}={value if '://' in value else os.path.join(folder, value)}"]
    for key, value in case.get("secrets", {}).items():
        command += ["--secret", f"id={key},src={os.path.join(folder, value)}"]
    for key, value in case.get("hosts", {}).items():
        command += ["--add-host", f"{key}:{value}"]
    if "target" in case:
        command += ["--target", case["target"]]
    if "network" in case:
        command += ["--network", case["network"]]
    if "label" in case:
        command += ["--label", case["label"]]
    command.append(folder)
    theirs = run(command)
    service = {"context": folder, "dockerfile": case.get("file", "Dockerfile"), "args": case.get("args", {}),
               "additional_contexts": case.get("contexts", {}), "secrets": list(case.get("secrets", {})),
               "extra_hosts": case.get("hosts", {})}
    for key in ("target", "network"):
        if key in case:
            service[key] = case[key]
    if "label" in case:
        service["labels"] = [case["label"]]
    project = {"name": "compare", "services": {"x": {"image": tag, "build": service}},
               "secrets": {key: {"file": os.path.join(folder, value)} for key, value in case.get("secrets", {}).items()}}
    project_file = os.path.join(work, name + ".json")
    with open(project_file, "w") as file:
        json.dump(project, file)
    # `$` of a Dockerfile's argument is not the Compose file's.
    ours = run([rcompose, "-f", project_file, "--project-directory", folder, "build", "--no-cache"], env=environment)
    if case.get("fails"):
        both = theirs.returncode != 0 and ours.returncode != 0
        return [] if both else [f"docker ends with {theirs.returncode}, rcompose with {ours.returncode}", ours.stdout[-600:]]
    if theirs.returncode or ours.returncode:
        return [f"docker ends with {theirs.returncode}, rcompose with {ours.returncode}", theirs.stdout[-800:] if theirs.returncode else "", ours.stdout[-1200:] if ours.returncode else ""]
    archives = [os.path.join(work, f"{side}.tar") for side in "ab"]
    saved = run([*docker, "save", "-o", archives[0], tag]), run([rcompose, "image", "save", "-o", archives[1], tag], env=environment)
    run([*docker, "image", "rm", tag])
    if any(one.returncode for one in saved):
        return ["an image cannot be saved", *(one.stdout[-300:] for one in saved)]
    return differences(*(image_of(archive) for archive in archives))


if __name__ == "__main__":
    sys.exit(main())
