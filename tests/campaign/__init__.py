"""The hostile campaign: gateways, a store and Batch as real processes, bad luck drawn from a seed, and a judge.

    plan        what will go wrong and when, the shares, the settings: all from the seed
    stage       one campaign: open, let go wrong, drain, gather
        package     a copy of the package, with edits
        stores      the stores that it can run on
        batch       the emulator as a process
        fleet       three gateways, watched and started again
        callers     who submit, insist, cancel, reprioritise
        trouble     does what the plan says
        history     what was done and seen
    evidence    what a campaign leaves: plain data in a folder
        keyspace    the store's raw keys, by our own reading
    checker     the judge: which promise was not kept
        cases       the evidence by submission
        order       rate and order inside a share
        places      the store's own order
    report      figures, and the whole history of a submission
    mutants     bugs that a campaign must find
        hunt        the campaigns that find them

`evidence` and what is below it import nothing of the gateway: the judge knows what was promised, not how it is kept.
"""
