"""What happens at a step besides stepping: metrics, progress, saving, profiling, and what you add.

A hook is an object with any of these methods; those that it lacks are not called.

    start(context)                      once, before the first step of this start
    measure(taken) -> {name: array}     on the devices, as a part of every step; see below
    accept(taken) -> bool array []      on the devices: whether the step's update is taken
    pauses(context, step) -> bool       whether the devices wait after this step until its `after_step` is over
    after_step(context, step, values)   after every step, when its figures have arrived
    before_save(context, step)          around the start of a save; its arrays are written while training goes on
    after_save(context, step)
    end(context)                        once, also after an error, which is then `context.error`; the last started first

The devices compute step n + 1 while the host calls `after_step` of step n, whose parameters are gone by then. So:

- `values` are the step's figures as `metrics.jsonl` has them, read-only: `loss` (nats a target token), `objective`
  (what is minimised, where that is something else), `accuracy`, `gradient_norm`, `parameter_norm`, `target_tokens`,
  `slots_filled` (share), `seconds`, `tokens_per_second`, `input_wait` (seconds for which the step waited for rows),
  `flops_per_second` of all devices together, `mfu` (where the devices' peak is known, in bfloat16),
  `memory_peak_bytes` (where the platform says it), `learning_rate` (where the optimizer says it), and `dataset_loss`
  and `cluster_loss` by name. `context.write(name, value)` adds to them.
- `context.state()` gives the state after step n (step, parameters, optimizer's state, on the devices) where the hook
  `pauses` after step n, and nowhere else. It must not be kept: the next step takes its memory. Its dictionaries are
  the hook's own; its arrays are the run's, and a hook that deletes or donates them ends the run.
- What needs parameters or gradients at every step is computed on the devices: `measure` is traced into the step with a
  `Taken` (`flan_jax.training.state`): gradients of the mean loss, updates, and parameters from before the update, of
  what is trained. The arrays that it returns lie whole on every device, so they should be small; `context.measured`
  has them as NumPy arrays in `after_step`. `start` is called before `measure`.
- Where an `accept` says no, parameters and optimizer's state stay as they were before the step, the stream goes on,
  and the figure `skipped` of the step is 1.
- `context.save()` asks for a checkpoint: of this step where the devices wait for it, else of the next, which is
  running. `context.stop(reason, status)` ends the run as soon, with a checkpoint unless `save=False`.
- In a pod every process calls its hooks. All have to ask for a save, a stop or a pause at the same step. The figures
  are the same in all of them, except those of the machine (`figures.OF_MACHINE`). `context.primary` is
  true in one, which writes.

The order is fixed: `watchdog`, `spikes`, `not_finite`, `learning_rate`, then yours in the order of HOOKS, then the
evaluation, `keeping_best`, `wandb_log`, `metrics_log`, `progress`, `profiling`, `preemption`, `saving`. What yours
write is in the log, and a save that they ask for is made.

A hook that takes long, such as an evaluation, should look at `context.ending()` now and then, and come to its end where
the program was told to end: the step can only be saved afterwards. One process of a pod may know of it alone.
`context.alive(doing)` tells the watchdog that it does not hang.

Yours are named by the macro HOOKS, see `loading`; docs/hooks.md has one to start from. What a hook raises ends the run
in one line with the hook's name and the place; a FlanError passes as it is.
"""
