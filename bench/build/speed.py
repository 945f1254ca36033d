#!/usr/bin/env python3
"""How long a build of ten steps takes, cached and not, as a ratio to `docker build`: both in turn, in one run.

    speed.py --base ARCHIVE [--docker DOCKER] [--rcompose BINARY] [--rounds N]

ARCHIVE is a docker-archive of `busybox:latest`, which DOCKER's daemon must have. The steps are COPY, ENV, six RUN, WORKDIR and
CMD; uncached, a build argument differs each time.
"""
import argparse, json, os, shlex, shutil, statistics, subprocess, tempfile, time

DOCKERFILE = """FROM busybox
ARG ROUND
COPY file /file
ENV A=b
""" + "".join(f"RUN echo {n} $ROUND > /out-{n}\n" for n in range(6)) + 'WORKDIR /w\nCMD ["true"]\n'


def timed(command, environment):
    begin = time.monotonic()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    took = time.monotonic() - begin
    assert done.returncode == 0, done.stdout
    return took


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--docker", default="docker")
    parser.add_argument("--rcompose", default="rcompose")
    parser.add_argument("--base", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    docker = shlex.split(arguments.docker)
    work = tempfile.mkdtemp(prefix="build-speed-")
    environment = dict(os.environ, RCOMPOSE_ROOT=os.path.join(work, "root"))
    try:
        with open(os.path.join(work, "Dockerfile"), "w") as file:
            file.write(DOCKERFILE)
        with open(os.path.join(work, "file"), "w") as file:
            file.write("content\n")
        with open(os.path.join(work, "compose.json"), "w") as file:
            json.dump({"name": "speed", "services": {"x": {"build": {"context": work}}}}, file)
        timed([arguments.rcompose, "image", "load", "-i", arguments.base], environment)
        times = {}
        for number in range(arguments.rounds):
            stamp = f"{os.getpid()}-{number}"
            sides = {
                "docker": [*docker, "build", "-q", "-t", "build-speed", "--build-arg", f"ROUND={stamp}", work],
                "rcompose": [arguments.rcompose, "-f", os.path.join(work, "compose.json"), "build", "-q", "--build-arg", f"ROUND={stamp}"],
            }
            for kind in ("uncached", "cached"):
                for side, command in sides.items():
                    times.setdefault((kind, side), []).append(timed(command, environment))
        for kind in ("uncached", "cached"):
            theirs, ours = (times[kind, side] for side in ("docker", "rcompose"))
            ratio = statistics.median(theirs) / statistics.median(ours)
            spread = lambda found: f"{statistics.median(found) * 1000:.0f} ms ({min(found) * 1000:.0f}-{max(found) * 1000:.0f})"
            print(f"{kind}: docker {spread(theirs)}, rcompose {spread(ours)}, ratio {ratio:.1f}")
    finally:
        subprocess.run([*docker, "image", "rm", "build-speed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
