import csv
import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rnr.data.batch import DegradedBatch
from rnr.diagnosis import Diagnosis
from rnr.stages import published
from rnr.stages.comparison import compared, read
from rnr.stages.evaluation import Evaluation


@pytest.fixture
def write(tmp_path):
    def to_file(name, rows):
        """rows: (photo, input_psnr, input_ssim, psnr, ssim)"""
        path = tmp_path / f"{name}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["photo", "input_psnr", "input_ssim", "psnr", "ssim"])
            writer.writerows(rows)
        return [path]

    return to_file


def test_rows_are_paired_photo_by_photo_and_draws_of_one_photo_count_once(write):
    ours = [("a", 10, 0.1, 20, 0.5), ("a", 12, 0.1, 22, 0.5), ("b", 10, 0.1, 30, 0.7)]
    other = [("a", 10, 0.1, 19, 0.4), ("a", 12, 0.1, 21, 0.4), ("b", 10, 0.1, 27, 0.6)]
    rows = compared({"other": write("other", other), "ours": write("ours", ours)}, "ours")
    # By hand: differences -1 and -3, mean -2, deviation sqrt(2), Student's t of one degree of freedom 12.7062.
    half = 12.7062 * math.sqrt(2) / math.sqrt(2)
    assert rows[0]["PSNR (dB) to ours"] == f"-2.00 [{-2 - half:+.2f}, {-2 + half:+.2f}]"
    assert [row["PSNR (dB)"] for row in rows] == ["23.50", "25.50"]
    assert [row["SSIM"] for row in rows] == ["0.5000", "0.6000"]
    assert rows[1]["PSNR (dB) to ours"] == rows[1]["SSIM to ours"] == ""


def test_seeds_of_a_run_count_as_draws_and_show_their_range(write):
    rival = write("r", [("a", 10, 0.1, 20, 0.5), ("b", 10, 0.1, 10, 0.5)])
    seeds = [*write("s0", [("a", 10, 0.1, 21, 0.5), ("b", 10, 0.1, 11, 0.5)])]
    seeds += write("s1", [("a", 10, 0.1, 23, 0.5), ("b", 10, 0.1, 13, 0.5)])
    rows = compared({"rival": rival, "two": seeds}, "rival")
    assert rows[1]["PSNR (dB)"] == "17.00" and rows[1]["PSNR by seed"] == "16.00 to 18.00"
    assert rows[1]["PSNR (dB) to rival"] == "+2.00 [+2.00, +2.00]"
    assert "reward" not in rows[0], "a column that no run has is no column of the table"


def test_photos_too_small_for_ssim_leave_its_mean_alone(write):
    file = write("a", [("a", 10, "nan", 20, "nan"), ("b", 10, 0.1, 30, 0.7), ("c", 10, 0.1, 31, 0.9)])
    (row,) = compared({"a": file}, "a")
    assert (row["PSNR (dB)"], row["SSIM"]) == ("27.00", "0.8000")


def test_seconds_are_told_where_all_runs_know_them_and_the_warm_up_does_not_count(tmp_path):
    files = {}
    for name, seconds in (("slow", ("nan", "3", "5")), ("cold", ("nan", "nan", "nan"))):
        path = tmp_path / f"{name}.csv"
        rows = [
            f"{photo},10,0.1,20,0.5,{each},{300 - i if name == 'slow' else 'nan'}"
            for i, (photo, each) in enumerate(zip("aab", seconds, strict=True))
        ]
        path.write_text("\n".join(["photo,input_psnr,input_ssim,psnr,ssim,seconds,peak_mib", *rows]))
        files[name] = [path]
    table = compared(files, "slow")
    assert [row["s a photo"] for row in table] == ["4.00", "-"]
    assert [row["MiB at the peak"] for row in table] == ["300", "-"]


def test_lpips_is_compared_where_all_runs_have_it(tmp_path):
    files = {}
    for name, distance in (("ours", 0.2), ("other", 0.3)):
        files[name] = [tmp_path / f"{name}.csv"]
        rows = [f"{photo},10,0.1,0.5,20,0.5,{distance}" for photo in "ab"]
        files[name][0].write_text("\n".join(["photo,input_psnr,input_ssim,input_lpips,psnr,ssim,lpips", *rows]))
    assert compared(files, "ours")[1]["LPIPS to ours"] == "+0.1000 [+0.1000, +0.1000]"


@pytest.mark.parametrize(
    ("photo", "said"),
    [(("b", 10, 0.1, 20, 0.5), "other photos"), (("a", 11, 0.1, 20, 0.5), "degraded otherwise.*11.00 dB there and 10.00")],
)
def test_what_cannot_be_compared_is_refused(photo, said, write):
    files = {"other": write("other", [photo]), "ours": write("ours", [("a", 10, 0.1, 20, 0.5)])}
    with pytest.raises(ValueError, match=f"other.csv: .*{said}"):
        compared(files, "ours")


def test_a_table_without_restored_photos_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("photo,input_psnr,input_ssim\na,10,0.1\n")
    with pytest.raises(ValueError, match=r"x.csv: has no figures of restored photos"):
        read([tmp_path / "x.csv"])


def test_the_papers_tables_are_as_printed():
    table2, table3 = published.rows(published.TABLE_2), published.rows(published.TABLE_3)
    assert table2[0] == table3[0] and list(table2[-1].values())[1:] == list(table3[-1].values())[1:]
    assert table2[5] == {
        "": "Qwen-Image", "OTS PSNR (dB)": "18.5255", "OTS SSIM": "0.5788", "RESIDE PSNR (dB)": "16.1400",
        "RESIDE SSIM": "0.6100",
    }  # fmt: skip


def test_the_mean_is_that_of_scikit_images_figures_photo_by_photo(tmp_path):
    """Whole photos of two sizes, RGB, 8 bit, nothing cropped: not the PSNR of a mean error, nor weighted by size."""
    generator, evaluation, expected = torch.Generator().manual_seed(0), Evaluation(), []
    for name, size, strength in (("a", (40, 50), 0.02), ("b", (24, 30), 0.2)):
        clean = torch.rand(1, 3, *size, generator=generator)
        restored = clean + strength * torch.randn(1, 3, *size, generator=generator)
        evaluation.add(DegradedBatch(clean, clean * 0.5, [Diagnosis()], [0], [name]), None, restored)
        x, y = ((z[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy() for z in (clean, restored))
        similarity = structural_similarity(
            x, y, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        expected.append((peak_signal_noise_ratio(x, y, data_range=255), similarity))
    evaluation.report(tmp_path)
    photos = read([tmp_path / "test.csv"])
    np.testing.assert_allclose([(photos[n]["psnr"], photos[n]["ssim"]) for n in "ab"], expected, rtol=0, atol=1e-4)
    (row,) = compared({"x": [tmp_path / "test.csv"]}, "x")
    psnr, ssim = np.mean(expected, axis=0)
    assert (float(row["PSNR (dB)"]), float(row["SSIM"])) == pytest.approx((psnr, ssim), abs=6e-3)
