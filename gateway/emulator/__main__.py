"""`python -m gateway.emulator`: the emulator alone."""

from gateway.emulator.command import emulator_command

if __name__ == "__main__":
    emulator_command(prog_name="python -m gateway.emulator")
