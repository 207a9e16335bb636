"""The files of a run folder: digests, images and the writer's lock."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.inputs import ImageRef, InputError
from studies.run_folder.locking import WriterLock
from studies.runs import RunFolder, digest_of_folder
from tests.studies.made_run import made_run, manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return made_run(tmp_path / "run")


class TestVerifying:
    def test_a_changed_a_lost_and_a_doubled_thing(self, run: RunFolder) -> None:
        path = run.path / "layers" / "part-000001.parquet"
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert run.verify().problems == ("layers/part-000001.parquet is not what was written",)
        path.unlink()
        assert run.verify().problems == ("layers/part-000001.parquet is lost",)

    def test_a_doubled_sample_and_a_missing_image(self, tmp_path: Path) -> None:
        with RunFolder.create(tmp_path / "run", manifest(batches=2)) as made:
            made.write_batch(0, {"samples": [{"sample_id": "a", "image_digests": ["0" * 64]}]})
            made.write_batch(1, {"samples": [{"sample_id": "a"}]})
            (made.path / "samples" / "part-000005.parquet").write_bytes(b"")
            found = made.verify()
        assert found.problems == ("sample a was written 2 times",)
        assert (found.samples, found.images_missing, found.leftovers) == (2, 1, 1)
        assert "1 problem" in str(found)


class TestImages:
    def test_small_images_are_kept_once_and_without_loss(self, run: RunFolder, tmp_path: Path) -> None:
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
        picture.save(tmp_path / "a.png")
        image = ImageRef(path=str(tmp_path / "a.png"))
        digest = run.save_image(image)
        first = run.image_path(digest).stat().st_mtime_ns
        assert run.save_image(image) == digest == image.digest
        assert run.image_path(digest).stat().st_mtime_ns == first
        assert np.array_equal(np.asarray(Image.open(run.image_path(digest)).convert("RGB")), np.asarray(picture))

    def test_large_images_are_scaled_down(self, run: RunFolder, tmp_path: Path) -> None:
        Image.new("RGB", (4096, 64), "red").save(tmp_path / "a.png")
        with Image.open(run.image_path(run.save_image(ImageRef(path=str(tmp_path / "a.png"))))) as kept:
            assert kept.size == (2048, 32)

    @pytest.mark.parametrize("digest", ["", "../manifest", "A" * 64, "0" * 63, "0" * 64 + "\n"])
    def test_a_digest_cannot_lead_out(self, run: RunFolder, digest: str) -> None:
        with pytest.raises(InputError, match="no image digest"):
            run.image_path(digest)


class TestLock:
    def test_a_second_writer_is_refused_by_the_first_ones_name(self, run: RunFolder) -> None:
        with pytest.raises(InputError, match=f"written by process {os.getpid()}"):
            RunFolder.create(run.path, manifest(), resume=True)
        assert run.verify().ok
        run.close()
        run.close()
        RunFolder.create(run.path, manifest(), resume=True).close()

    def test_another_process_is_refused_until_it_dies(self, tmp_path: Path) -> None:
        code = (
            "import sys, time; from pathlib import Path; from studies.run_folder.locking import WriterLock; "
            f"lock = WriterLock(Path({str(tmp_path)!r})); print('held', flush=True); time.sleep(60)"
        )
        holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid} "):
            RunFolder.create(tmp_path, manifest())
        holder.kill()
        holder.wait()
        assert (tmp_path / ".writer.json").exists()
        with RunFolder.create(tmp_path, manifest()) as made:
            assert made.missing_batches() == [0, 1, 2]

    def test_a_broken_note_does_no_harm(self, tmp_path: Path) -> None:
        lock = WriterLock(tmp_path)
        (tmp_path / ".writer.json").write_text("{")
        with pytest.raises(InputError, match="another process"):
            WriterLock(tmp_path)
        lock.release()


class TestDigest:
    def test_of_names_and_contents_only(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name / "sub").mkdir(parents=True)
            (tmp_path / name / "sub" / "a").write_bytes(b"x")
            (tmp_path / name / "b").write_bytes(b"y")
        os.utime(tmp_path / "two" / "b", (0, 0))
        (tmp_path / "two" / ".hidden").write_bytes(b"z")
        first = digest_of_folder(tmp_path / "one")
        assert first == digest_of_folder(tmp_path / "two")
        (tmp_path / "two" / "b").rename(tmp_path / "two" / "c")
        assert first != digest_of_folder(tmp_path / "two")
        (tmp_path / "one" / "b").write_bytes(b"Y")
        assert first != digest_of_folder(tmp_path / "one")

    def test_links_count_as_their_files(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "a").write_bytes(b"x")
        (tmp_path / "linked").mkdir()
        (tmp_path / "linked" / "a").symlink_to(tmp_path / "real" / "a")
        assert digest_of_folder(tmp_path / "real") == digest_of_folder(tmp_path / "linked")

    def test_nothing_has_no_digest(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            digest_of_folder(tmp_path / "none")
        with pytest.raises(InputError, match="holds no file"):
            digest_of_folder(tmp_path)
