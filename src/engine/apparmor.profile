# What containers run under where the host has AppArmor and nothing else was asked for. A second wall: what it refuses is
# refused already by capabilities, seccomp and read-only mounts, unless those were lifted one by one.
profile rcompose-default flags=(attach_disconnected,mediate_deleted) {
  network,
  unix,
  dbus,
  capability,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=rcompose-default,
  ptrace (trace, read, tracedby, readby) peer=rcompose-default,

  deny mount,

  # Of /proc, what belongs to processes and to the container's own namespaces.
  deny /proc/* w,
  deny /proc/[^0-9st]*/** w,
  deny /proc/scsi/** w,
  deny /proc/sys/[^fkn]** w,
  deny /proc/sys/fs/{[^m],m[^q]}** w,
  deny /proc/sys/kernel/[^dhms]** w,
  deny /proc/sys/kernel/d[^o]** w,
  deny /proc/sys/kernel/h{[^o],o[^s]}** w,
  deny /proc/sys/kernel/m[^s]** w,
  deny /proc/sys/kernel/s{[^eh],e[^m]}** w,
  deny /proc/kcore rwklx,
  deny /proc/sysrq-trigger rwklx,

  # Of /sys, control groups, which have rights of their own.
  deny /sys/[^f]*/** wkl,
  deny /sys/f[^s]*/** wkl,
  deny /sys/fs/[^c]*/** wkl,
  deny /sys/fs/c[^g]*/** wkl,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
}
