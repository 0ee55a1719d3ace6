#!/usr/bin/env bash
# The whole idea on a synthetic world: videos -> frozen features -> anonymizer -> utility, privacy, report.
# Sets itself up (a .venv here, or the active virtual environment). Run again, it skips whatever is done. Trainings of small
# networks run in pairs, a core each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup_env.sh

DATA=data/demo
RUNS="${SPLAVU_RUNS:-saved_models}"
SECONDS=0
step() { printf '\n[%3d s] %s\n' "$SECONDS" "$*"; "$@"; }
join() { # wait for what was started with &; fail if any of it did
  local job failed=0
  for job in $(jobs -p); do wait "$job" || failed=$?; done
  return "$failed"
}
small() { OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" step "$@"; } # more threads would wait for each other
detector() { # NAME [--aam CHECKPOINT ...]: a fresh TriDet, trained and tested
  local name="$1" options=("${@:2}" --set "output_folder=$RUNS/demo" --quiet)
  small python tridet/train.py tridet/thumos_demo.yaml --output "$name" "${options[@]}"
  small python tridet/eval.py tridet/thumos_demo.yaml "$RUNS/demo/thumos_demo_$name" "${options[@]}"
}
anomalies() { # NAME [--aam CHECKPOINT ...]: a fresh MGFN, trained and tested
  local lists="$DATA/ucf_crime"
  small python mgfn/main.py @mgfn/demo.txt --rgb-list "$lists/ucf-i3d.list" --test-rgb-list "$lists/ucf-i3d-test.list" \
    --gt "$lists/gt-ucf.npy" --features "$DATA/features/ucf_crime_demo" --output "$RUNS/demo" --model-name "mgfn_$1" \
    "${@:2}" --quiet
}
train_head() { small python train_ft.py --params params/params_demo_ft.py --quiet "$@"; }
attack() { step python privacy_eval.py --params params/params_demo_fb.py --quiet "$@"; }

# 1. Videos of acting people, in the own layouts of HMDB51, VISPR, THUMOS14 and UCF-Crime.
step python -m splavu synthesize --out "$DATA" --sets hmdb51,vispr,thumos14,ucf_crime --seed 0 --size small

# 2. Frozen features: clips, and ten static clips a video.
EXTRACT="python feature_extraction/feature_extraction_action.py --encoder demo --data $DATA --features $DATA/features"
step $EXTRACT --dataset hmdb51 --split train,val,test --static 10
step $EXTRACT --dataset vispr --split train,test
LONG="python feature_extraction/long_videos.py --encoder demo --data $DATA --features $DATA/features"
step $LONG --dataset thumos14
step $LONG --dataset ucf_crime

# 3. TriDet and MGFN on raw features, from which the anonymizer's co-training starts; then the anonymizer. And another
#    as the reference trains it, a batch of clips being one sequence, with action recognition alone.
detector raw &
anomalies raw &
join
small python multitask_train_fa.py --params params/params_demo.py --quiet \
  --set "saved_ft_tad_model=$RUNS/demo/thumos_demo_raw" --set "saved_ft_ad_model=$RUNS/demo/mgfn_raw/model_temp.pth" &
small python multitask_train_fa.py --params params/params_demo.py --quiet --set run_id=demo/aam_batch \
  --set batch_as_sequence=True --set ft_tad_loss_weight=0 --set ft_ad_loss_weight=0 --set num_epochs=100 &
join

#    A closed-form anonymizer besides: it erases what still pictures tell of a clip, in seconds and without a private label.
ERASER="$RUNS/demo/eraser/model_temp.pth"
step python -m splavu fit eraser --rank 64 --raw "$DATA/features/features_hmdb_train_demo.h5" \
  --static "$DATA/features/features_hmdb_train_demo_fb10.h5" --labels "$DATA/hmdb51/hmdb51_train_labels.csv" \
  --out "$ERASER" --quiet

# 4. Utility: fresh heads and detectors, tested on unseen subjects.
BATCH="saved_fa_model=$RUNS/demo/aam_batch/model_temp.pth"
train_head --set run_id=demo/ft_raw --set anon=False
train_head --set "saved_fa_model=$RUNS/demo/aam/model_temp.pth"
train_head --set run_id=demo/ft_batch_in_batch --set "$BATCH" --set serving=batch
train_head --set run_id=demo/ft_batch_alone --set "$BATCH"

train_head --set run_id=demo/ft_eraser --set "saved_fa_model=$ERASER"

AAM="$RUNS/demo/aam/model_temp.pth"
detector aam_alone --aam "$AAM" --aam-serving alone &
detector aam_video --aam "$AAM" &
join
anomalies aam_alone --aam "$AAM" --aam-serving alone &
anomalies aam_video --aam "$AAM" &
join
detector eraser --aam "$ERASER" --aam-serving alone &
anomalies eraser --aam "$ERASER" --aam-serving alone &
join

# 5. Privacy: fresh attackers on what is released; then the same checkpoint judged in its batch and alone.
attack --set "saved_fa_model=$RUNS/demo/aam/model_temp.pth"
attack --set run_id=demo/privacy_eraser --set "saved_fa_model=$ERASER"
COMPARE=(--set "attackers=('logistic', 'mlp')" --set "seeds=(0,)" --set "$BATCH")
attack --set run_id=demo/privacy_batch_in_batch --set serving=batch "${COMPARE[@]}"
attack --set run_id=demo/privacy_batch_alone "${COMPARE[@]}"
attack --set run_id=demo/privacy_published --set protocol=published --set dataset=vispr \
  --set "views=('static',)" --set "$BATCH" --set "seeds=(0,)"

# 6. The report.
step python -m splavu report "$RUNS/demo" --data "$DATA"
