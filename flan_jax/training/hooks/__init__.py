"""Hooks: what happens at a step besides the step itself, such as metrics, progress, saving, and your own additions.

A hook is an object with any of these methods. Methods that it lacks are not called.

    start(context)                      once, before the first step of this start
    measure(taken) -> {name: array}     on the devices, as a part of every step; see below
    accept(taken) -> bool array []      on the devices: whether to take the step's update
    pauses(context, step) -> bool       whether the devices wait after this step until its `after_step` is over
    after_step(context, step, values)   after every step, when its figures are there
    before_save(context, step)          before a save starts; arrays are written while training goes on
    after_save(context, step)           after a save has started
    end(context)                        once, also after an error (`context.error`); the last started hook first

While the host calls `after_step` of step n, the devices already compute step n + 1, and the parameters of step n are
gone. This has consequences:

- `values` are the step's figures as in `metrics.jsonl`. They cannot be changed. They are `loss` (nats for each target
  token), `objective` (what is minimised, if that is not the loss), `accuracy`, `gradient_norm`, `parameter_norm`,
  `target_tokens`, `slots_filled` (a share), `seconds`, `tokens_per_second`, `input_wait` (seconds that the step waited
  for rows), `flops_per_second` of all devices together, `mfu` (if the devices' peak is known, in bfloat16),
  `memory_peak_bytes` (if the platform reports it), `learning_rate` (if the optimizer reports it), and `dataset_loss`
  and `cluster_loss` by name. `context.write(name, value)` adds a figure.
- `context.state()` returns the state after step n (step, parameters, optimizer's state, on the devices), but only if
  the hook `pauses` after step n. Do not keep it: the next step reuses its memory. The dictionaries in it are copies,
  but the arrays are the run's own. A hook that deletes or donates them ends the run.
- If you need parameters or gradients at every step, compute on the devices. `measure` is traced into the step. It gets
  a `Taken` (`flan_jax.training.state`) with gradients of the mean loss, updates, and parameters from before the update,
  of all that is trained. The arrays that it returns lie whole on every device, so they should be small.
  `context.measured` has them as NumPy arrays in `after_step`. `start` is called before `measure`.
- If an `accept` returns False, parameters and optimizer's state stay as they were before the step. The stream goes on,
  and the step's figure `skipped` is 1.
- `context.save()` asks for a checkpoint: of this step if the devices wait for it, otherwise of the next one, which is
  already running. `context.stop(reason, status)` ends the run equally soon, with a checkpoint unless `save=False`.
- In a pod, every process calls its hooks. All must ask for a save, a stop or a pause at the same step. The figures are
  the same in all processes, except those of the machine (`figures.OF_MACHINE`). `context.primary` is true in one
  process, which writes.

The order is fixed: `watchdog`, `spikes`, `not_finite`, `learning_rate`, then your hooks in the order of HOOKS, then the
evaluation, `keeping_best`, `wandb_log`, `metrics_log`, `progress`, `profiling`, `preemption`, `saving`. So figures that
your hooks write are in the log, and saves that they ask for are made.

A hook that takes long, such as an evaluation, should call `context.ending()` now and then. If it is true, the program
was told to end, and the hook should finish: the step can only be saved afterwards. In a pod, one process may know this
alone. `context.alive(doing)` tells the watchdog that the hook does not hang.

The macro HOOKS names your hooks, see `loading`; docs/hooks.md has an example to start from. An exception in a hook ends
the run with one line that names the hook and the place. A FlanError is passed on as it is.
"""
