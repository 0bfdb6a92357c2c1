"""Runs in: the user's shell. What `bunri dump --help` says: a module of its own, since help loads nothing else."""

USAGE = """\
Usage: bunri dump [-AdDehKlLnNOpqStuUvxX#] [ -B size ] [ -c count ] [--count] [ -C file_size ] [ -F file ]
                  [ -G seconds ] [ -i interface ] [--immediate-mode] [ -Q in|out|inout ] [ -r file ] [ -s snaplen ]
                  [ -T type ] [ -w file ] [ -W filecount ] [ -y datalinktype ] [--print] [--micro] [--nano]
                  [ --time-stamp-precision precision ] [ -Z user ] [--quarantine file] [--self-confine] [ expression ]
"""
HELP = f"""\
{USAGE}
tcpdump's options, with their meaning. Packets are decoded in a process that holds nothing.
--quarantine file   keep packets on which decoders die, as a capture
--self-confine      one process, which confines itself once it has opened its capture

Examples:
  bunri dump -n -r capture.pcap 'udp port 53'
  sudo bunri dump -i eth0 -n -w out.pcap -C 100 --quarantine bad.pcap
"""
