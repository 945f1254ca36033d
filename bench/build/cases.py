"""The Dockerfiles that are built by both builders. Base image: busybox:latest."""
import bz2, gzip, io, tarfile


def tar(compress=lambda data: data, **members):
    def make():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, value in members.items():
                info = tarfile.TarInfo(name.replace("__", "/"))
                info.uid, info.gid, info.mtime = 1234, 4321, 1000000000
                if value is None:
                    info.type, info.mode = tarfile.DIRTYPE, 0o750
                    archive.addfile(info)
                elif value.startswith("->"):
                    info.type, info.linkname, info.mode = tarfile.SYMTYPE, value[2:], 0o777
                    archive.addfile(info)
                elif value.startswith("=>"):
                    info.type, info.linkname, info.mode = tarfile.LNKTYPE, value[2:], 0o640
                    archive.addfile(info)
                else:
                    info.size, info.mode = len(value), 0o640
                    archive.addfile(info, io.BytesIO(value.encode()))
        return compress(buffer.getvalue())
    return make


TREE = {"a.txt": "a\n", "b.md": "b\n", "src/x.c": "int x;\n", "src/y.h": "y\n", "src/sub/z.c": "z\n", "src/sub/deep/w.log": "w\n",
        "script.sh@755": "#!/bin/sh\necho script\n", "secret@600": "s\n", "link": "->a.txt", "dirlink": "->src", "src/up": "->../a.txt",
        "hard1": "h\n", "hard2": "=>hard1", "empty": None, "src/empty": None, "with space.txt": "sp\n"}

CASES = {}


def case(name, dockerfile, **more):
    CASES[name] = {"dockerfile": dockerfile.lstrip("\n"), **more}


# Configuration
case("env", r'''
FROM busybox
ENV A=1 B="two words" C=th\ ree D='$A' E=$A F=${A}x G=${N:-def} H=${A:+alt}
ENV OLD the  rest of it
ENV A=2 Z=$A
RUN env | grep -v HOSTNAME | sort > /env
''')
case("env-modifiers", r'''
FROM busybox
ENV P=a/b/c.tar.gz E=
ENV X1=${P#*/} X2=${P##*/} X3=${P%.*} X4=${P%%.*} X5=${P/b/X} X6=${P//[a-c]/_} X7=${E:-e} X8=${E-e} X9=${N-n} Y1=${E:+x} Y2=${E+x} Y3="\$P" Y4='${P}'
''')
case("labels", r'''
FROM busybox
ENV V=1
LABEL a=b "c d"="e f" v=$V multi="line1 \
line2"
LABEL old style label
LABEL quoted='single $V'
''')
case("label-option", "FROM busybox\nLABEL a=file b=file\n", label="b=option")
case("cmd-exec", 'FROM busybox\nCMD ["echo", "a b", "$X"]\n')
case("cmd-shell", "FROM busybox\nCMD echo a b $X\n")
case("entrypoint-resets-cmd", 'FROM busybox AS b\nCMD ["x"]\nFROM b\nENTRYPOINT ["y"]\n')
case("entrypoint-keeps-cmd", 'FROM busybox\nCMD ["x"]\nENTRYPOINT ["y"]\n')
case("entrypoint-shell", "FROM busybox\nENTRYPOINT exec top -b\n")
case("expose", "FROM busybox\nENV P=9000\nEXPOSE 80 443/tcp 53/udp 8000-8002 $P/udp\nEXPOSE 81/TCP\n")
case("volume", 'FROM busybox\nENV D=/data\nVOLUME $D /b\nVOLUME ["/c d", "/e"]\nRUN mkdir -p /data && echo x > /data/x\n')
case("user", '''
FROM busybox
RUN echo 'app:x:1000:1001::/home/app:/bin/sh' >> /etc/passwd && echo 'grp:x:1001:' >> /etc/group && mkdir -p /home/app && chmod 777 /home
USER app
RUN id > /tmp/id 2>/dev/null || id > /home/id; echo $HOME >> /home/id
USER 5:6
RUN id > /home/id2
USER app:0
RUN id > /home/id3
USER root
''')
case("workdir", "FROM busybox\nENV D=dyn\nWORKDIR /a/b\nWORKDIR c\nWORKDIR ../d/./e\nWORKDIR $D\nRUN pwd > /pwd\n")
case("workdir-link", "FROM busybox\nRUN mkdir /real && ln -s /real /l\nWORKDIR /l/sub\nRUN pwd > /pwd; echo x > y\n")
case("workdir-user", "FROM busybox\nUSER 7:8\nWORKDIR /own/dir\n")
case("stopsignal", "FROM busybox\nARG S=SIGUSR1\nSTOPSIGNAL $S\n")
case("healthcheck", 'FROM busybox\nHEALTHCHECK --interval=1m30s --timeout=500ms --start-period=2s --start-interval=1s --retries=3 CMD ["true", "x"]\n')
case("healthcheck-shell", "FROM busybox\nHEALTHCHECK CMD wget -q -O- localhost || exit 1\n")
case("healthcheck-none", "FROM busybox\nHEALTHCHECK NONE\n")
case("shell", '''
FROM busybox
SHELL ["/bin/sh", "-e", "-c"]
RUN echo $0 > /s
CMD echo x
ENTRYPOINT echo y
HEALTHCHECK CMD z
''')
case("maintainer", "FROM busybox\nMAINTAINER A B <a@b.c>\n")
case("onbuild", '''
FROM busybox AS parent
ONBUILD ARG X=1
ONBUILD RUN echo $X > /onbuild
ONBUILD COPY a.txt /
FROM parent
RUN cat /onbuild > /after
''', files=TREE)
case("onbuild-left", "FROM busybox\nONBUILD RUN echo a b\nONBUILD COPY . /x\n")

# Arguments
case("arg-global", "ARG B=busybox\nARG T=latest\nFROM $B:${T}\nARG T\nRUN echo \"$T-$B\" > /t\n")
case("arg-override", "FROM busybox\nARG A=default\nARG C\nARG D=$A-x\nRUN echo \"$A|$C|$D\" > /a\nENV A=env\nRUN echo $A > /b\n", args={"A": "given", "C": "c"})
case("arg-env-order", "FROM busybox\nENV A=env\nARG A=arg\nARG B=arg\nENV B=env\nRUN echo $A $B > /ab\nENV C=$A-$B\n")
case("arg-scope", "FROM busybox AS one\nARG A=1\nRUN echo \"[$A]\" > /a\nFROM one\nRUN echo \"[$A]\" > /b\nARG A\nRUN echo \"[$A]\" > /c\n")
case("arg-platform", "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETPLATFORM\nARG TARGETARCH BUILDOS\nRUN echo $TARGETPLATFORM $TARGETARCH $BUILDOS > /p\n")
case("arg-several", "FROM busybox\nARG A=1 B='two words' C=\"$A\"\nRUN echo \"$A,$B,$C\" > /x\n")
case("arg-proxy", "FROM busybox\nRUN echo \"$HTTP_PROXY\" > /p\n", args={"HTTP_PROXY": "http://p:1"})

# Syntax
case("escape-directive", "# escape=`\nFROM busybox\nRUN echo a `\n  b > /x\nRUN echo 'c\\d' > /y\nENV W=C:\\x\n")
case("comments", '''
# a comment
   # another

FROM busybox
RUN echo a \\
  # in the middle
  b \\

  c > /x
# end
''')
case("case-insensitive", "from busybox as Base\nrun echo x > /x\nFrom base\nCopy --from=BASE /x /y\n")
case("crlf", "FROM busybox\r\nRUN echo a \\\r\n  b > /x\r\nENV A=b\r\n")
case("dockerfile-name", "FROM busybox\nCOPY . /c\n", file="other.Dockerfile", files={"a": "a", ".dockerignore": "*", "other.Dockerfile.dockerignore": "other*\n.docker*\n"})

# Here-documents
case("heredoc-run", "FROM busybox\nRUN <<EOF\necho a > /a\necho \"$0\" > /b\nEOF\nRUN <<-'EOF'\n\techo tab > /c\nEOF\n")
case("heredoc-shebang", "FROM busybox\nRUN <<EOF\n#!/bin/sh -e\necho hi > /hi\nEOF\n")
case("heredoc-several", "FROM busybox\nRUN cat <<A > /a && cat <<B > /b\none $HOME\nA\ntwo\nB\n")
case("heredoc-interpreter", "FROM busybox\nRUN cat <<EOF > /out\n#!/not/a/script\nx\nEOF\n")
case("heredoc-copy", '''
FROM busybox
ENV V=val
COPY <<one.txt <<'two.txt' <<-three.txt /d/
v=$V "q" \\$V
one.txt
v=$V
two.txt
	tab $V
	three.txt
COPY --chmod=755 --chown=3:4 <<EOF /bin/script
#!/bin/sh
echo ${V:-x}
EOF
RUN script > /out
''')
case("heredoc-onbuild", "FROM busybox AS p\nONBUILD RUN <<EOF\necho o > /o\nEOF\nFROM p\n")

# COPY
case("copy-file", "FROM busybox\nCOPY a.txt /\nCOPY a.txt /new\nCOPY a.txt /dir/\nCOPY a.txt b.md /two/\nCOPY script.sh secret /m/\n", files=TREE)
case("copy-json", 'FROM busybox\nCOPY ["with space.txt", "/d e/"]\nCOPY ["a.txt", "/x y"]\n', files=TREE)
case("copy-folder", "FROM busybox\nCOPY src /s1\nCOPY src/ /s2/\nCOPY src empty /s3/\nCOPY . /all\n", files=TREE)
case("copy-links", "FROM busybox\nCOPY link /l\nCOPY dirlink /d\nCOPY src/up /u\nCOPY hard1 hard2 /h/\nCOPY . /all\n", files=TREE)
case("copy-wildcard", "FROM busybox\nCOPY *.txt /t/\nCOPY src/?.[ch] /c/\nCOPY s* /s/\nCOPY src/*/z.c /z/\n", files=TREE)
case("copy-into-existing", '''
FROM busybox
RUN mkdir -p /d/sub /e && chmod 700 /d/sub && chown 9:9 /d && echo old > /d/x.c && echo keep > /d/keep && echo f > /file && chmod 600 /file
COPY src /d
COPY a.txt /e
COPY a.txt /file
''', files=TREE)
case("copy-through-link", "FROM busybox\nRUN mkdir /real && ln -s real /l && ln -s /gone/away /dangling\nCOPY a.txt /l/\nCOPY src /l/s\nCOPY b.md /l/made/deep/b\n", files=TREE)
case("copy-chown", '''
FROM busybox
RUN echo 'app:x:1000:1001::/:/bin/sh' >> /etc/passwd && echo 'grp:x:77:' >> /etc/group
COPY --chown=app a.txt /a
COPY --chown=app:grp src /made/s
COPY --chown=5 a.txt /b
COPY --chown=:6 a.txt /c
COPY --chown=7:grp link /d/
''', files=TREE)
case("copy-chmod", "FROM busybox\nARG M=640\nCOPY --chmod=$M src /s\nCOPY --chmod=4755 a.txt /a\nCOPY --chmod=u=rwX,go=rX src /x\nCOPY --chmod=+x a.txt /y\n", files=TREE)
case("copy-exclude", "FROM busybox\nCOPY --exclude=*.h --exclude=sub src /s\nCOPY --exclude=**/*.log --exclude=*.md . /all\n", files=TREE)
case("copy-link", "FROM busybox\nRUN mkdir -p /d && chmod 700 /d && echo x > /d/x\nCOPY --link a.txt /d/\nCOPY --link --chown=1:2 src /e/f\n", files=TREE)
case("copy-workdir", "FROM busybox\nWORKDIR /w\nCOPY a.txt .\nCOPY a.txt sub/\nCOPY a.txt ./x\nCOPY src .\n", files=TREE)
case("copy-variables", "FROM busybox\nARG F=a.txt\nENV D=/dest\nCOPY $F ${D}/\nCOPY ${F%.txt}.txt $D/copy\n", files=TREE)
case("copy-up", "FROM busybox\nCOPY ../../a.txt ./../b.md /x/\n", files=TREE)
case("copy-missing", "FROM busybox\nCOPY nothing /\n", files=TREE, fails=True)
case("copy-dir-over-file", "FROM busybox\nRUN echo x > /f\nCOPY src /f\n", files=TREE, fails=True)
case("copy-file-over-dir", "FROM busybox\nRUN mkdir -p /d/a.txt\nCOPY a.txt /d/\n", files=TREE, fails=True)
case("copy-several-no-dir", "FROM busybox\nCOPY a.txt b.md /x\n", files=TREE)
case("copy-only-empty-wildcard", "FROM busybox\nCOPY nothing* /x/\n", files=TREE)
case("copy-empty-wildcard", "FROM busybox\nCOPY nothing* a.txt /x/\n", files=TREE)
case("dockerignore", "FROM busybox\nCOPY . /c\n", files={**TREE, ".dockerignore": "# no\n*.md\n/src/sub\n!src/sub/deep\nsecret\n**/*.h\n"})
case("dockerignore-all-but", "FROM busybox\nCOPY . /c\nCOPY src/x.c /x\n", files={**TREE, ".dockerignore": "*\n!src/*.c\n!a.txt\n"})
case("dockerignore-missing", "FROM busybox\nCOPY a.txt /x\n", files={**TREE, ".dockerignore": "a.txt\n"}, fails=True)

# Stages
case("stages", '''
FROM busybox AS build
RUN mkdir /out && echo built > /out/bin && chmod 751 /out/bin && ln -s bin /out/ln && mkfifo /out/p && chown 3:4 /out/bin
FROM busybox AS other
COPY --from=build /out/bin /o
FROM scratch
COPY --from=build /out /out
COPY --from=1 /o /o
COPY --from=busybox:latest /bin/busybox /bin/sh
''')
case("stage-target", "FROM busybox AS a\nRUN echo a > /a\nFROM a AS b\nRUN echo b > /b\nFROM b AS c\nRUN false\n", target="b")
case("stage-inherits", 'FROM busybox AS a\nENV X=1\nUSER 5\nWORKDIR /w\nCMD ["a"]\nLABEL l=1\nFROM a\nRUN echo $X > /tmp/x 2>/dev/null; true\nLABEL m=2\n')
case("stage-parallel", "FROM busybox AS a\nRUN sleep 0.3; echo a > /a\nFROM busybox AS b\nRUN sleep 0.3; echo b > /b\nFROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n")
case("scratch", "FROM scratch\nCOPY a.txt /\nENV A=b\nWORKDIR /w\n", files=TREE)
case("scratch-run-shell", "FROM scratch\nCOPY --from=busybox / /\nRUN echo hi > /hi\n")
case("context-folder", "FROM busybox\nCOPY --from=extra . /e\nCOPY --from=extra f /f\n", files={"more/f": "f", "more/g/h@750": "h"}, contexts={"extra": "more"})

# Whiteouts and special files
case("remove", "FROM busybox\nRUN mkdir -p /d/e && echo 1 > /d/1 && echo 2 > /d/e/2\nRUN rm /d/1 /bin/wget\nRUN rm -r /d && mkdir /d && echo 3 > /d/3\nRUN rm -r /tmp /bin/vi\n")
case("rename", "FROM busybox\nRUN mkdir -p /d/e && echo 1 > /d/1\nRUN mv /d /f && mv /f/1 /f/e/2 && mv /tmp /casa\n")
case("replace-types", "FROM busybox\nRUN echo f > /x && mkdir /y && ln -s a /z\nRUN rm /x && mkdir /x && rmdir /y && echo f > /y && rm /z && echo n > /z\n")
case("special-files", "FROM busybox\nRUN mkfifo /p && mknod /c c 1 3 && ln -s /x/y /l && echo h > /h1 && ln /h1 /h2 && chmod 6755 /h1 && mkdir /t && chmod 1777 /t\n")
case("modes-kept", "FROM busybox\nRUN chmod 700 /tmp && chown 1:1 /etc && touch /etc/x\n")

# ADD
ARCHIVE = dict(d=None, d__f="content\n", d__l="->f", d__h="=>d/f")
case("add-tar", "FROM busybox\nADD t.tar /t\nADD t.tar.gz /g/\nADD t.tar.bz2 /b\nADD --chown=5:6 t.tar /o\n", files={
    "t.tar": tar(**ARCHIVE), "t.tar.gz": tar(gzip.compress, **ARCHIVE), "t.tar.bz2": tar(bz2.compress, **ARCHIVE)})
case("add-plain", "FROM busybox\nADD a.txt /\nADD src /s\nADD fake.tar.gz /f/\nADD text.gz /g/\n", files={**TREE, "fake.tar.gz": "not one", "text.gz": lambda: gzip.compress(b"just text", mtime=0)})
case("add-tar-over", "FROM busybox\nRUN mkdir -p /t/d && echo old > /t/d/f && ln -s /elsewhere /t/d/l\nADD t.tar /t\n", files={"t.tar": tar(**ARCHIVE)})

# RUN
case("run-exec", 'FROM busybox\nENV X=1\nRUN ["sh", "-c", "echo $X > /x"]\nRUN ["touch", "/a b"]\n')
case("run-env", "FROM busybox\nRUN env | sort > /env; pwd > /pwd; umask > /umask; hostname > /hn; cat /proc/self/status | grep -E 'Cap(Prm|Eff|Bnd|Inh|Amb)|NoNewPrivs|Seccomp:' > /caps; id > /id; ls /dev | sort > /dev-list; ls -1 /proc/self/fd | wc -l > /fds\n")
case("run-mounts", '''
FROM busybox AS s
RUN mkdir /data && echo d > /data/f
FROM busybox
RUN --mount=type=bind,source=src,target=/m cat /m/x.c > /1; ls -ln /m | sed 1d | awk '{print $1,$3,$4,$NF}' > /2; touch /m/new 2> /dev/null || echo ro > /3
RUN --mount=from=s,source=/data,target=/n/deep,rw cp /n/deep/f /4; touch /n/deep/w && echo rw > /5
RUN --mount=type=tmpfs,target=/tt,size=10m echo x > /tt/x; df /tt | tail -1 | awk '{print $2}' > /6
RUN --mount=type=cache,target=/ca,mode=0711,uid=5,gid=6 stat -c '%a %u %g' /ca > /7; echo c > /ca/c
RUN --mount=type=cache,target=/ca,mode=0711,uid=5,gid=6 cat /ca/c > /8
WORKDIR /w
RUN --mount=target=. ls > /9
''', files=TREE)
case("run-secret", '''
FROM busybox
RUN --mount=type=secret,id=key cat /run/secrets/key > /1; stat -c '%a %u %g' /run/secrets/key > /2
RUN --mount=type=secret,id=key,target=/etc/k,mode=0444,uid=3,gid=4 cat /etc/k > /3; stat -c '%a %u %g' /etc/k > /4
RUN --mount=type=secret,id=key,env=KEY echo $KEY > /5
RUN --mount=type=secret,id=none ls /run/secrets > /6 2>&1; true
''', files={"k": "value"}, secrets={"key": "k"})
case("run-secret-required", "FROM busybox\nRUN --mount=type=secret,id=none,required=true true\n", fails=True)
case("run-network-none", "FROM busybox\nRUN --network=none ip -o link | awk '{print $2}' > /l\n")
case("run-network-default", "FROM busybox\nRUN ip -o link | awk '{print $2}' | sed 's/@.*//' > /l; ip -o -4 addr show dev eth0 | wc -l > /a; ip route | grep -c default > /r\n")
case("run-hosts", "FROM busybox\nRUN grep -c other /etc/hosts > /h; grep other /etc/hosts | awk '{print $1,$2}' >> /h\n", hosts={"other": "10.1.2.3"})
case("run-fails", "FROM busybox\nRUN echo x; exit 3\n", fails=True)
case("run-killed", "FROM busybox\nRUN sh -c 'kill -9 $$; true'; exit $?\n", fails=True)
case("run-leftover-process", "FROM busybox\nRUN (sleep 30 &) ; echo done > /d\n")
case("run-resolv-untouched", "FROM busybox\nRUN echo 1 > /etc/own; ls /etc | grep -v -E '^(resolv.conf|hosts|hostname|mtab)$' > /e\n")

# Less common forms
case("heredoc-mixed", "FROM busybox\nCOPY a.txt <<inline b.md /d/\ntext\ninline\nADD <<one <<two /e/\n1\none\n2\ntwo\nRUN <<A sh -s && cat <<'B' > /f\necho from $0 > /g\nA\n$X `cmd`\nB\n", files=TREE)
case("heredoc-quoted-in-shell", "FROM busybox\nSHELL [\"/bin/sh\", \"-exc\"]\nRUN <<\"EOF\"\nx='a b'\nprintf '%s\\n' \"$x\" > /x\nEOF\nRUN echo 'not <<a heredoc' > /y\nRUN echo \"$((1<<3))\" > /z\n")
case("from-modifiers", "ARG IMAGE=prefix-busybox.suffix\nARG TAG=\nFROM ${IMAGE#prefix-} AS broken\n", fails=True)
case("from-modifiers-right", "ARG IMAGE=prefix-busybox.suffix\nARG STEP=${IMAGE#prefix-}\nARG NAME=${STEP%.suffix}\nARG TAG=\nARG AS=fin\nFROM ${NAME/busy/busy}:${TAG:-latest} AS final\nARG NAME\nRUN echo $NAME > /n\n")
case("from-default-missing", "FROM ${IMAGE:-busybox} AS ${X:-y}\n", fails=True)
case("from-default", "FROM ${IMAGE:-busybox}\nRUN echo a > /a\n")
case("onbuild-chain", "FROM busybox AS a\nONBUILD ENV A=1\nONBUILD WORKDIR /w\nONBUILD RUN echo $A > a\nFROM a AS b\nONBUILD RUN echo b > /b\nONBUILD LABEL l=$A\nFROM b\nRUN ls / > /ls\n")
case("onbuild-from", "FROM busybox AS s\nRUN echo s > /s\nFROM busybox AS p\nONBUILD COPY --from=s /s /from-s\nONBUILD RUN --mount=from=s,target=/m cat /m/s > /t\nFROM p\n")
case("numeric-from", "FROM busybox\nRUN echo 0 > /zero\nFROM busybox\nCOPY --from=0 /zero /one\nFROM scratch\nCOPY --from=1 /one /two\nCOPY --from=0 /zero /three\n")
case("numeric-from-forward", "FROM busybox\nCOPY --from=1 /x /\nFROM busybox\nCOPY --from=0 /x /\n", fails=True)
case("mount-rw-lost", "FROM busybox AS s\nRUN mkdir /d && echo 1 > /d/f\nFROM busybox\nRUN --mount=from=s,source=/d,target=/d,readwrite echo 2 > /d/f; cat /d/f > /r; touch /d/new\nRUN --mount=type=bind,from=s,src=/d,dst=/e,ro=false ls /e > /q; touch /e/w && echo y >> /q\nRUN ls / > /left\n")
case("mount-file", "FROM busybox\nRUN --mount=source=a.txt,target=/m/a cat /m/a > /1; ls -A /m > /2\nRUN --mount=type=bind,from=busybox,source=/bin/busybox,target=/bb test -x /bb && echo x > /3\nRUN --mount=type=tmpfs,dst=/new/dir touch /new/dir/x; ls /new > /4\nRUN ls / > /5\n", files=TREE)
case("mount-variables", "FROM busybox\nARG S=src\nENV T=/tgt\nRUN --mount=type=bind,source=$S,target=${T} ls $T > /1\nRUN --mount=type=cache,id=$S-x,target=/c echo 1 > /c/1\nRUN --mount=type=cache,id=src-x,target=/d,sharing=locked cat /d/1 > /2\n", files=TREE)
case("shell-order", "FROM busybox\nSHELL [\"/bin/busybox\", \"ash\", \"-c\"]\nCMD a\nSHELL [\"/bin/sh\", \"-x\", \"-c\"]\nENTRYPOINT b c\nHEALTHCHECK --timeout=3s CMD d\nFROM busybox\nRUN echo \"$0\" > /s\nCMD [ \"not json ]\n")
case("user-workdir", "FROM busybox\nRUN echo 'u:x:44:45::/h/u:/bin/sh' >> /etc/passwd\nUSER u\nWORKDIR /x/y\nCOPY a.txt .\nCOPY --chown=u a.txt b\nADD a.txt c/\nWORKDIR z\nUSER root:45\nRUN echo r > r; id -g > /id\n", files=TREE)
for signal in ["9", "KILL", "SIGRTMIN+3", "sigint", "RTMAX-1"]:
    case("stopsignal-" + signal.lower().replace("+", "p"), f"FROM busybox\nSTOPSIGNAL {signal}\n")
case("stopsignal-wrong", "FROM busybox\nSTOPSIGNAL NOPE\n", fails=True)
case("expose-ranges", "FROM busybox\nARG P=70\nEXPOSE ${P}00-${P}03/udp\nEXPOSE 10-11/tcp 11 12/sctp\nEXPOSE 5000:6000\n")
case("expose-backwards", "FROM busybox\nEXPOSE 20-10\n", fails=True)
case("volume-json", "FROM busybox\nVOLUME [\"/a\", \"/b/../c\", \"rel\"]\nVOLUME /d /e\nVOLUME [\"/a\"]\n")
case("volume-empty", "FROM busybox\nVOLUME [\"\"]\n", fails=True)
case("volume-not-json", "FROM busybox\nVOLUME ['/a']\n")
case("label-lines", "FROM busybox\nLABEL a=\"1\" \\\n      b='2 3' \\\n      # a comment\n      c=4\\ 5 \\\n\n      d=\"x\\\"y\" \"e f\"=g\nLABEL \"com.example\"=\"a\\\nb\" h=\nLABEL i=\"$NOPE\" j='$NOPE' k=${NOPE:-def}\n")
case("escape-backtick", "#escape=`\n\nFROM busybox\nENV A=a` b P=C:\\dir\\ Q=`$x\nRUN echo one `\n two > /x `\n && echo $HOME > /y\nCOPY [\"a.txt\", \"/b\\\\c\"]\n", files=TREE)
case("directive-late", "# a comment\n# escape=`\nFROM busybox\nRUN echo a \\\n b > /x\n")
case("directive-unknown", "# foo=bar\n# escape=`\nFROM busybox\nRUN echo a \\\n b > /x\n")
case("check-directive", "# check=skip=all;error=true\nFROM busybox AS Upper\nMAINTAINER me\nENV a b\nRUN echo x > /x\n")
case("json-odd", "FROM busybox\nRUN [ \"sh\" , \"-c\" , \"echo \\u0041 > /a\" ]\nCMD [ ]\n")
case("json-wrong", "FROM busybox\nCMD [\"a\", b]\nENTRYPOINT ['x']\n")
case("run-json-wrong", "FROM busybox\nRUN [\"echo\", x]\n", fails=True)
case("env-odd", "FROM busybox\nENV A=\"a b\"c'd e' B=a\\\\b C= D=\"\" E='it''s' F=\"tab\\tx\" G=\\$A H=\"\\$A\" I=${A:-${B}} J=${A:+${C:-inner}}\nRUN env | grep -E '^[A-J]=' | sort > /env\n")
case("env-legacy", "FROM busybox\nENV A   b  c=d \"e\"\nENV B \\\n  x\n")
case("arg-quoting", "FROM busybox\nARG A=\"x y\" B='z' C=$A\\ b\nARG D=\nRUN echo \"$A|$B|$C|$D|\" > /x\nLABEL a=$A b=\"$C\"\n", args={"D": "given"})
case("arg-after-from", "ARG A=1\nFROM busybox\nRUN echo \"$A\" > /1\nARG A\nRUN echo \"$A\" > /2\nARG A=3\nRUN echo \"$A\" > /3\n")
case("arg-repeats", "ARG V=a\nARG W=$V-b\nFROM busybox AS one\nARG W\nARG V=inner\nRUN echo $W $V > /1\nFROM one\nARG V\nRUN echo \"[$V][$W]\" > /2\n")
case("target-unused-broken", "FROM busybox AS a\nRUN echo a > /a\nFROM nowhere.invalid/x AS b\nRUN false\nFROM a\nCOPY --from=a /a /b\n")
case("stage-name-image", "FROM busybox AS alpine\nRUN echo mine > /mine\nFROM alpine\nRUN cat /mine > /seen\n")
case("stage-twice", "FROM busybox AS a\nFROM busybox AS a\nRUN echo 2 > /2\nFROM a\nRUN ls / > /ls\n")
case("add-unpack", "FROM busybox\nADD --unpack=false t.tar /a/\nADD --unpack=true t.tar.gz /b/\nADD --chown=7:8 --chmod=700 t.tar /c/\nADD t.tar a.txt /d/\n", files={**TREE, "t.tar": tar(**ARCHIVE), "t.tar.gz": tar(gzip.compress, **ARCHIVE)})
case("add-tar-bad-place", "FROM busybox\nRUN echo f > /f\nADD t.tar /f\n", files={"t.tar": tar(**ARCHIVE)}, fails=True)
case("copy-special-names", "FROM busybox\nCOPY [\"[ab].txt\", \"/x/\"]\nCOPY [[]ab].txt /y/\n", files={**TREE, "[ab].txt": "brackets"})
case("copy-dot-files", "FROM busybox\nCOPY .h* /a/\nCOPY * /b/\n", files={**TREE, ".hidden": "h", ".hdir/x": "x"})
case("dockerignore-odd", "FROM busybox\nCOPY . /c\n", files={**TREE, ".dockerignore": "\ufeff# x\n  src/sub  \n!src/sub/z.c\n./a.txt\n/b.md/\n**/with*\nscrip[!x].sh\n"})
case("continuation-end", "FROM busybox\nRUN echo a > /a \\\n\n\nRUN echo b > /b\n")
case("keyword-flags", "FROM busybox\nCOPY --nope=x a.txt /\n", files=TREE, fails=True)

case("exclude-patterns", "FROM busybox\nCOPY --exclude=src/** . /a\nCOPY --exclude=* --exclude=!a.txt . /b\nCOPY --exclude=?.c --exclude=deep src /c\nADD --exclude=*.txt --exclude=script* . /d\n", files=TREE)
case("copy-chmod-folders", "FROM busybox\nCOPY --chmod=2775 src /s\nCOPY --chmod=1777 src /u\nCOPY --chmod=4640 src /v/\nCOPY --chmod=0 a.txt /0\nCOPY --chmod=a=r,u+w a.txt script.sh /m/\nADD --chmod=2750 src /x\nCOPY --chmod=2775 src/sub /y/z\nCOPY --link --chmod=711 . /l\n", files=TREE)
case("arg-proxy-declared", "FROM busybox\nARG HTTPS_PROXY\nARG no_proxy=x\nRUN env | grep -i -E 'proxy' | sort > /e; true\nENV A=$HTTPS_PROXY\n", args={"HTTPS_PROXY": "http://p", "ftp_proxy": "f"})
case("mount-cache-from", "FROM busybox AS s\nRUN mkdir /seed && echo seed > /seed/f && chown 5:6 /seed && chmod 700 /seed\nFROM busybox\nRUN --mount=type=cache,target=/c,id=seeded-y,from=s,source=/seed cat /c/f > /1; stat -c '%u %g %a' /c > /2\nRUN --mount=type=cache,target=/c,id=seeded-z,from=s,source=/seed,uid=9,mode=0711 stat -c '%u %g %a' /c /c/f > /3\n")

# Wrong Dockerfiles
for number, text in enumerate(["", "RUN x\n", "FROM busybox\nRUNN x\n", "FROM\n", "FROM busybox\nCOPY a\n", "FROM busybox\nENV A\n", "FROM busybox\nRUN <<EOF\nx\n",
                               "FROM busybox\nEXPOSE x\n", "FROM busybox\nCOPY --nope a /\n", "FROM busybox\nSHELL sh\n", "FROM busybox\nENV A=${B\n",
                               "FROM busybox\nRUN --mount=type=nope x\n", "FROM busybox\nHEALTHCHECK --interval=1 CMD x\n", "FROM busybox\nENV A=${B:?gone}\n", "FROM $NOPE\n"]):
    case(f"wrong-{number:02}", text, fails=True)
