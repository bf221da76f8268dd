"""The faults of `benchmarks.faults`: what is done to a run, what has to come of it, and the tests that do it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is done to a run, what has to come of it, and the tests that do it: files, functions, or cases of them."""

    done: str
    seen: str
    tests: tuple[str, ...]


_PROCESSES, _SAFE, _LOOP = (
    "tests/slow/test_processes.py",
    "tests/training/test_safe_run.py",
    "tests/training/test_loop.py",
)
_CHECKPOINT, _SOURCES, _TAR = (
    "tests/training/test_faults.py",
    "tests/data/test_sources.py",
    "tests/data/test_tar_cache.py",
)
_FUZZ = "tests/data/test_fuzz_sources.py"


def _of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{name}" for name in names)


FAULTS = {
    "kill": Fault(
        "kill -9 of one of 4 processes, and of a process alone",
        "the others stop with a sentence within 60 s; the restart goes on to the bit",
        (
            *_of(_PROCESSES, "the_others_stop_with_a_sentence_when_one_is_killed"),
            "tests/slow/test_kill.py",
            "tests/core/test_herald.py",
        ),
    ),
    "sigterm": Fault(
        "SIGTERM to all processes, or to one",
        "all save one step and end; the restart goes on to the bit",
        (
            *_of(_PROCESSES, "sigterm_to_all_saves_one_step_and_the_restart_goes_on"),
            *_of(_LOOP, "a_signal_saves_and_the_restart_is_exact"),
            *_of("tests/training/test_host_sync.py", "two_processes_agree_without_a_wait"),
            *_of("tests/launch/test_launch.py", "slurm_requeues_what_was_stopped"),
        ),
    ),
    "save": Fault(
        "kill -9 at 20 random moments of an asynchronous save",
        "the last complete checkpoint always restores",
        ("tests/slow/test_kill_saves.py",),
    ),
    "disk": Fault(
        "disk full during a save, or while metrics are written",
        "a sentence; the checkpoint before restores",
        (
            *_of(_CHECKPOINT, "a_save_that_the_disk_refuses_is_a_sentence_and_the_one_before_restores"),
            *_of(_CHECKPOINT, "a_save_that_failed_does_not_end_in_a_checkpoint_when_the_disk_has_space_again"),
            *_of(_CHECKPOINT, "where_one_of_two_hosts_is_full_it_says_so_at_once_and_waits_for_nobody"),
            *_of(_SAFE, "metrics_that_the_disk_refuses_stop_the_run_with_a_sentence"),
            *_of(_SAFE, "tensorboard_on_a_full_disk_is_an_error_of_the_disk"),
        ),
    ),
    "checkpoint": Fault(
        "a checkpoint cut, deleted in part, or with flipped bits",
        "found, said, and the one before it used",
        (
            *_of(_CHECKPOINT, "a_flipped_bit_anywhere_is_found", "a_cut_or_missing_file_is_found"),
            *_of(_CHECKPOINT, "a_list_that_is_damaged_itself_is_damage"),
            *_of(_CHECKPOINT, "a_run_goes_on_from_the_checkpoint_before_and_the_step_is_saved_again"),
            *_of(_CHECKPOINT, "a_reader_passes_over_it_and_changes_nothing"),
            *_of(_CHECKPOINT, "none_whole_is_an_error_and_nothing_is_renamed"),
            *_of(_CHECKPOINT, "metrics_that_are_damaged_do_not_choose_what_is_kept"),
            *_of(_CHECKPOINT, "two_hosts_agree_on_what_is_damaged"),
            *_of(_CHECKPOINT, "trouble_of_reading_is_tried_again_and_is_no_damage"),
            *_of(_SAFE, "a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before_and_ends_the_same"),
        ),
    ),
    "restart": Fault(
        "restart on 1, 2, 8 devices and with 1, 2, 4 processes",
        "the same examples, the loss within 1e-5 relative",
        (
            *_of(_PROCESSES, "restarts_on_other_devices_and_processes_take_the_same_examples"),
            *_of(_PROCESSES, "the_ring_loss_goes_on_with_sharded_parameters_on_two_processes"),
            *_of("tests/training/test_checkpoint.py", "restores_onto_another_mesh_and_onto_one_device"),
        ),
    ),
    "shard": Fault(
        "a data shard missing, cut, replaced or written over under the running job",
        "no other sample is given; counted, then a sentence",
        (
            "tests/data/test_changing_files.py",
            *_of(_SOURCES, "a_cut_shard_keeps_its_whole_samples", "a_shard_that_shrinks_while_it_is_read_is_bad"),
            *_of(_SOURCES, "missing_shards_are_named", "a_damaged_array_record_is_bad"),
            *_of("tests/slow/test_copies.py", "three_percent_of_damage_stops_at_one_percent_and_is_counted_at_five"),
        ),
    ),
    "remote": Fault(
        "a remote read that is slow, fails, or never returns",
        "tried again with growing pauses, then named",
        ("tests/data/test_remote_faults.py",),
    ),
    "nan": Fault(
        "NaN in the loss or in gradients alone",
        "the update is skipped and counted; the run stops after N",
        (
            *_of(_LOOP, "gradients_alone_that_are_nan_are_skipped_and_counted_over_a_restart"),
            *_of(_LOOP, "gradients_that_stay_nan_stop_the_run_after_n_steps"),
            *_of(_LOOP, "numbers_that_are_not_finite_stop_the_run_with_a_sentence"),
            *_of("tests/training/test_step.py", "a_non_finite_update_is_skipped_and_counted"),
        ),
    ),
    "clock": Fault(
        "a clock that jumps by hours",
        "nothing changes but the rates that are shown",
        _of(_SAFE, "a_clock_that_jumps_changes_nothing_but_the_rates"),
    ),
    "workdir": Fault(
        "two jobs on one workdir",
        "the second refuses and changes nothing",
        ("tests/training/test_workdir_lock.py",),
    ),
    "fuzz": Fault(
        "10,000 generated inputs each: tar index and its cache, manifest, tokenizer, config readers, list of files",
        "clean errors only",
        (
            *_of(_FUZZ, "any_bytes_as_a_tar", "any_bytes_as_a_manifest"),
            *_of(_TAR, "any_bytes_in_the_cache"),
            "tests/data/test_fuzz_tokenizer.py",
            "tests/core/test_fuzz_config.py",
            *_of("tests/training/test_fuzz_checkpoint.py", "any_bytes_as_the_list_of_files"),
        ),
    ),
    "soak": Fault(
        "40 minutes with a fault every two",
        "no example lost or doubled against the sampler's plan; memory flat within 2 %",
        ("tests/slow/test_soak.py",),
    ),
    "permissions": Fault(
        "files under a loose umask",
        "nobody but the owner may write a workdir, an export or an index",
        (
            *_of(_SAFE, "files_are_the_owners_to_write_and_hold_no_credentials"),
            *_of("tests/data/test_export.py", "only_the_owner_may_change_what_is_exported"),
            *_of(_TAR, "only_the_owner_may_change_the_cache"),
        ),
    ),
    "paths": Fault(
        "paths in a tar, a manifest or a checkpoint that lead out of its folder",
        "nothing is opened or written there",
        (
            *_of(
                _SOURCES, "the_names_in_a_tar_lead_nowhere", "a_path_stays_in_its_folder", "what_leads_out_of_a_folder"
            ),
            *_of(_CHECKPOINT, "a_list_that_names_a_file_of_elsewhere_is_damage_and_opens_nothing"),
        ),
    ),
    "credentials": Fault(
        "credentials in the paths of data",
        "in no log, stored config or error",
        (
            "tests/core/test_secrets.py",
            *_of("tests/doctor/test_doctor.py", "credentials_in_the_name_of_data_are_not_printed"),
            *_of("tests/data/test_export.py", "credentials_in_the_name_of_data_are_in_no_log"),
            *_of(_SAFE, "files_are_the_owners_to_write_and_hold_no_credentials"),
        ),
    ),
}
