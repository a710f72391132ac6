"""Interrupt the tools and stages of a copy of the repository, and start them again."""

import os
import random
import signal
import time

from support.tiny_pipeline import (
    DVC,
    MODEL,
    SNAKEMAKE,
    duplicate,
    read_results,
    running_stages,
    tiny_copy,
    wait_until,
)

STAGES = ("fetch", "pack", "survey", "train", "evaluate", "render", "tabulate")
COMMANDS = {"snakemake": SNAKEMAKE, "dvc": DVC}
OUTPUTS = (MODEL, *(f"outputs/quick/nmr_srt/{name}" for name in ("metrics.json", "video.mp4")))

# A test run in the background ignores Ctrl-C, and so would all processes that it starts.
HEAR_CTRL_C = ("env", "--default-signal=INT")

# What a person must do after a tool was killed at a bad moment.
UNLOCK = ("snakemake", "--cores", "1", "--unlock")
DELETE_LOCK = ("rm", ".dvc/tmp/rwlock")


class InterruptedCopy:
    """A copy of the repository in which a tool is interrupted.

    `faults` has what was done to it, and `manual_commands` what a person had to do afterwards
    besides running the tool again.
    """

    def __init__(self, folder, tool, source=None):
        self.tool = tool
        self.copy = duplicate(source, folder) if source else tiny_copy(folder)
        self.random = random.Random()  # other moments in every test run
        self.faults = []
        self.manual_commands = []

    def fail(self):
        """Run the tool, which must fail, and return its output."""
        code, output = self.copy.run(*COMMANDS[self.tool])
        assert code != 0
        assert not running_stages(self.copy)
        return output

    def finish(self):
        """Run the tool to its end, and return its output; do first what its message asks for."""
        code, output = self.copy.run(*COMMANDS[self.tool])
        if code != 0 and self.follow_advice(output):
            code, output = self.copy.run(*COMMANDS[self.tool])
        assert code == 0, output
        return output

    def follow_advice(self, output):
        """Do what a tool's message asks for; return whether it asks for anything."""
        if "--unlock" in output:
            command = UNLOCK
        elif "Unable to read RWLock-file" in output:  # DVC was killed while it wrote that file
            command = DELETE_LOCK
        else:
            return False
        code, output = self.copy.run(*command)
        assert code == 0, output
        self.manual_commands.append(" ".join(command))
        return True

    def interrupt(self, victim, number, stages, delay):
        """Run the tool, and send a signal at a random moment of the first of some stages.

        Args:
            victim: "tool", "stage", or "both" as by Ctrl-C in a terminal or by a power cut.
            number: of the signal.
            delay: the stages' durations in seconds.

        Returns:
            The stage, or None if the tool came to its end without running any of them.
        """
        # Wait for one of the stages.
        process = self.copy.start(*HEAR_CTRL_C, *COMMANDS[self.tool], start_new_session=True)
        running = []

        def has_started():
            running.extend(name for name in running_stages(self.copy).values() if name in stages)
            return running or process.poll() is not None

        wait_until(has_started)

        # The tool may have ended. If it only asked for something, do that and try again.
        if not running:
            output = process.communicate()[0]
            if process.returncode != 0 and self.follow_advice(output):
                return self.interrupt(victim, number, stages, delay)
            assert process.returncode == 0, output
            return None

        # By the random moment, another stage may run. No process may survive the tool.
        time.sleep(self.random.uniform(0, delay[running[0]]))
        current = list(running_stages(self.copy).values())
        self._send(victim, number, process)
        process.communicate()  # ends with the last process that has its output
        wait_until(lambda: not running_stages(self.copy))
        moment = current[0] if current else "between"
        self.faults.append((signal.Signals(number).name, victim, moment))
        return running[0]

    def _send(self, victim, number, process):
        if victim == "stage":
            for pid in running_stages(self.copy):
                os.kill(pid, number)
        elif victim == "both":
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)

    def results(self):
        """Return what must not depend on interruptions: table, weights, metrics and video."""
        files = [(self.copy.folder / name).read_bytes() for name in OUTPUTS]
        return read_results(self.copy), files


def stage_durations(copy):
    """Return how many seconds each stage took, from Snakemake's benchmarks."""
    seconds = {}
    folder = copy.folder / "logs" / "quick"
    for name in STAGES:
        # Only the table has no folder of benchmarks, as it is one job.
        paths = sorted(folder.glob(f"{name}*/*.tsv")) or [folder / f"{name}.tsv"]
        row = paths[0].read_text().splitlines()[1]
        seconds[name] = float(row.split("\t")[0])
    return seconds
