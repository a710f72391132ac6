#!/bin/sh
# Start or stop a Slurm of two small nodes on this machine, for tests:
#   slurm.sh start FOLDER
#   slurm.sh stop FOLDER
# It needs root and Debian's packages: apt-get install slurm-wlm munge. It writes to FOLDER, except
# the key and socket of munge, and links from /etc/slurm, where jobs search the configuration.
set -eu
action=$1
folder=$2
etc=/etc/slurm

start() {
  if [ -e "$etc/slurm.conf" ]; then
    echo "$etc/slurm.conf: a Slurm is set up here already" >&2
    return 1
  fi
  # Munge authenticates the messages of Slurm. It may run already.
  mkdir -p "$folder/state" "$folder/first" "$folder/second" /run/munge
  chown munge: /run/munge
  [ -e /etc/munge/munge.key ] || mungekey --create
  munge -n > /dev/null 2>&1 || runuser -u munge -- munged > "$folder/munge.log" 2>&1

  # The configuration: both nodes are this machine, with different ports.
  host=$(hostname -s)
  cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort=16817
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
StateSaveLocation=$folder/state
SlurmdPidFile=$folder/%n.pid
SlurmdSpoolDir=$folder/%n
SlurmdLogFile=$folder/%n.log
# One machine: no control groups, no binding to cores.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=5
GresTypes=gpu
NodeName=DEFAULT CPUs=2 RealMemory=1000000 Gres=gpu:2
NodeName=first NodeHostname=$host NodeAddr=127.0.0.1 Port=17001
NodeName=second NodeHostname=$host NodeAddr=127.0.0.1 Port=17002
PartitionName=cpu Nodes=first,second Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=first,second MaxTime=INFINITE State=UP
CONF
  cat > "$folder/gres.conf" <<CONF  # two GPUs a node, by devices that every machine has
AutoDetect=off
NodeName=first,second Name=gpu File=/dev/null
NodeName=first,second Name=gpu File=/dev/zero
CONF

  # Start the daemons and wait until both nodes are idle.
  mkdir -p "$etc"
  ln -sf "$folder/slurm.conf" "$folder/gres.conf" "$etc"
  slurmctld -c
  slurmd -N first
  slurmd -N second
  for _ in $(seq 60); do
    [ "$(sinfo -h -N -p cpu -t idle | wc -l)" = 2 ] && return
    sleep 0.5
  done
  echo "the nodes are not up:" >&2
  tail -n 20 "$folder"/*.log >&2
  return 1
}

stop() {
  for file in "$folder"/*.pid; do
    [ ! -e "$file" ] || kill "$(cat "$file")" || true
  done
  if [ "$(readlink "$etc/slurm.conf")" = "$folder/slurm.conf" ]; then
    rm "$etc/slurm.conf" "$etc/gres.conf"
  fi
}

"$action"
