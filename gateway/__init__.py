"""The gateway in front of AWS Batch service jobs: a map, to be read first.

A submission takes one way, one module a hop:

    POST → api/middleware (request id, caller, canonical line, errors → problems)
         → api/submissions → api/codec (+ batch/payload: SageMaker's rules)
         → core/intake (identity, frozen request)
         → store/redis_store.admit (lua/admit.lua)                         → 202, 200, 4xx, 503
              durable from here
    core/forwarder: store.lease (lua/lease.lua: fair order, pace)
         → store.confirm (store/confirming: the lease is as durable as a 202)
         → core/job_search (has an earlier call made its job?)
         → batch/batch_client → batch/failures (what the answer proves)
         → core/attempt.verdict_on (what follows)
         → store.settle (lua/settle.lua: fenced) → core/journal (what the log says)

What else is asked of Batch for a submission is an errand: a look for its job where no answer told, a termination, an
update of its priority. It is owed in the store, by the same scripts that changed the record, and goes

    core/errands: store/errands.lease (lua/lease_errand.lua)
         → core/job_search, batch/reconcile, core/reconcile (which job is whose)
         → store/errands.settle (lua/settle_errand.lua: fenced)

Batch's own face (api/batch_face, api/batch_errors) takes the same way in. What it tells of jobs and queues comes from

    core/service_jobs (both kinds of id), core/job_listing (what waits, Batch's pages, what ended), core/queue_reads
         → core/job_view (a submission as Batch would show it)
         → core/reads, core/job_reads (one call for all who ask; kept a second; store/read_budget, lua/read.lua)
         → batch/reads

core/queue_check asks the same way what a queue takes, and core/intake holds submissions of both faces against it.

Whatever changes a submission later (cancel, priority, redrive, resolve) comes through core/changes and store/changes;
core/lookup finds submissions again, core/explanation says what holds one, core/outlook when it will go. core/audit and
store/audit (lua/audit*.lua) hold what is in the store against what its commands leave there, slowly and for ever.

Rooms, from the top; each knows only those below it:

    __main__, dev   commands
    runtime         opens, runs, drains and closes everything; wiring: who knows whom
    settings        file and environment, once
    api             HTTP in front: decode, ask the core, encode
    store           submissions in Redis: a Lua file a command, one hash tag an upstream
    batch           AWS Batch through aiobotocore, and SageMaker's model
    core            what a submission is and what becomes of it; no HTTP, Redis, AWS or environment
    console         the operators' command line, over HTTP like any caller
    emulator        Batch's service-job API for one machine; stands alone
    events          the log: its pipeline, and the list of all events and fields
"""
