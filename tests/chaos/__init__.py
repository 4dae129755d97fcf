"""Jobs that are attacked at chosen moments, run again, and compared with undisturbed ones.

`hook/sitecustomize.py` is loaded by every process and asks before each change of an artifact;
`watch` answers, and lets an attack happen while the process waits; `jobs` are the commands that are
attacked; `field` are the servers they run on; `chain` runs one command until it is through, under
one attack after another; `mends` takes one safeguard out, after which chains have to fail; `report`
keeps what happened and makes the table. `make chaos` is `python -m tests.chaos`.
"""
