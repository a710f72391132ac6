"""Breaks off the tools and stages of a copy of the repository, and starts them again."""

import os
import random
import signal
import time

from support.tiny_pipeline import (
    DVC,
    MODEL,
    SNAKEMAKE,
    copied,
    rows,
    stages_in,
    tiny_copy,
    wait_until,
)

STAGES = ("fetch", "pack", "survey", "train", "evaluate", "render", "tabulate")
COMMANDS = {"snakemake": SNAKEMAKE, "dvc": DVC}
HEARING = ("env", "--default-signal=INT")  # tests in the background inherit a deaf ear to Ctrl-C
UNLOCK = ("snakemake", "--cores", "1", "--unlock")
DELETE_LOCK = ("rm", ".dvc/tmp/rwlock")
SAME = (MODEL, *(f"outputs/quick/nmr_srt/{name}" for name in ("metrics.json", "video.mp4")))


class Broken:
    """A copy in which one tool is broken off; `typed` is what a person had to type besides."""

    def __init__(self, folder, tool, whole=None):
        self.tool = tool
        self.copy = copied(whole, folder) if whole else tiny_copy(folder)
        self.random = random.Random()  # other moments in every test run
        self.faults = []
        self.typed = []

    def fail(self):
        """Runs the tool, which must fail, and returns what it says."""
        code, said = self.copy.run(*COMMANDS[self.tool])
        assert code != 0
        assert not stages_in(self.copy)
        return said

    def finish(self):
        """Runs the tool to its end, having done what its message asks for."""
        code, said = self.copy.run(*COMMANDS[self.tool])
        if code != 0 and self.mend(said):
            code, said = self.copy.run(*COMMANDS[self.tool])
        assert code == 0, said
        return said

    def mend(self, said):
        """Does what a tool's message asks for; returns whether it asks for anything."""
        if "--unlock" in said:
            command = UNLOCK
        elif "Unable to read RWLock-file" in said:  # DVC was hit as it wrote that file
            command = DELETE_LOCK
        else:
            return False
        code, said = self.copy.run(*command)
        assert code == 0, said
        self.typed.append(" ".join(command))
        return True

    def strike(self, victim, number, stages, delay):
        """Runs the tool, and sends a signal at a random moment of the first of some stages.

        Args:
            victim: "tool", "stage", or "both" as Ctrl-C in a terminal or a power cut.
            delay: the stages' durations in seconds.

        Returns the stage, or None where the tool comes to its end without them.
        """
        process = self.copy.start(*HEARING, *COMMANDS[self.tool], start_new_session=True)
        found = []
        wait_until(
            lambda: found.extend(self._running(stages)) or found or process.poll() is not None
        )
        if not found:
            said = process.communicate()[0]
            if process.returncode != 0 and self.mend(said):
                return self.strike(victim, number, stages, delay)
            assert process.returncode == 0, said
            return None
        time.sleep(self.random.uniform(0, delay[found[0]]))
        hit = list(stages_in(self.copy).values())
        self._send(victim, number, process)
        process.communicate()  # ends with the last process that holds its output
        wait_until(lambda: not stages_in(self.copy))  # no orphan
        self.faults.append((signal.Signals(number).name, victim, hit[0] if hit else "between"))
        return found[0]

    def _running(self, stages):
        return [name for name in stages_in(self.copy).values() if name in stages]

    def _send(self, victim, number, process):
        if victim == "stage":
            for pid in stages_in(self.copy):
                os.kill(pid, number)
        elif victim == "both":
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)

    def results(self):
        """Returns what must not depend on what happened: the table, weights, metrics, video."""
        return rows(self.copy), [(self.copy.folder / name).read_bytes() for name in SAME]


def durations(copy):
    """Returns how long each stage took, from Snakemake's benchmarks."""
    seconds = {}
    for name in STAGES:
        (path, *_) = sorted((copy.folder / "logs" / "quick").glob(f"{name}*/*.tsv")) or [
            copy.folder / "logs" / "quick" / f"{name}.tsv"
        ]
        seconds[name] = float(path.read_text().splitlines()[1].split("\t")[0])
    return seconds
