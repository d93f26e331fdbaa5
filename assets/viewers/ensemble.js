/* Videos that run as one: one frame number for all, exact when they stand, kept together while they play.
 *
 * Knows <video> elements and their frame rates, no buttons. Time is counted in frames of the fastest clip over the
 * length of the longest one. A frame is addressed by the middle of its time, which no rounding moves to a neighbour.
 * While playing, the longest clip leads, and the others are slowed or hurried until they are with it again; a shorter
 * clip waits on its last frame.
 */
import { clamp } from "./parts.js";

const CATCH_UP = 0.12;  // by which share a clip that is behind runs faster
const JUMP_S = 0.3;  // so far apart, it jumps instead

export class Ensemble {
  constructor(videos, rates, shown) {
    this.clips = videos.map((video, index) => ({ video, fps: rates[index] || 24, frames: 1, wanted: null }));
    this.shown = shown;  // called without arguments whenever `frame` or `playing` has changed
    this.frame = 0;
    this.rate = 1;
    this.loop = true;
    this.playing = false;
    this.turn = 0;  // counts commands, so that one that waited for a video knows whether it still stands
  }

  /* Waits until every clip can be shown; those that cannot are left out and returned. */
  async open() {
    const broken = [];
    await Promise.all(this.clips.map((clip) => opened(clip.video).catch(() => broken.push(clip))));
    this.clips = this.clips.filter((clip) => !broken.includes(clip));
    for (const clip of this.clips) {
      clip.frames = Math.max(1, Math.round(clip.video.duration * clip.fps));
      clip.video.loop = false;
      clip.video.muted = true;
      clip.video.addEventListener("seeked", () => this.arrived(clip));
    }
    if (this.clips.length) {
      this.fps = Math.max(...this.clips.map((clip) => clip.fps));
      this.leader = this.clips.reduce((one, other) => (length(other) > length(one) + 1e-6 ? other : one));
      this.frames = Math.max(1, Math.round(length(this.leader) * this.fps));
      this.seek(0);
    }
    return broken.map((clip) => clip.video);
  }

  /* The frame of one clip at frame `at` of all. */
  frameOf(clip, at = this.frame) {
    return Math.min(Math.floor(((at + 0.5) / this.fps) * clip.fps + 1e-6), clip.frames - 1);
  }

  /* Whether the clip is over at frame `at` and stands on its last one. */
  holds(clip, at = this.frame) { return (at + 0.5) / this.fps > length(clip); }

  seek(frame) {
    this.halt();
    this.frame = clamp(Math.round(frame), 0, this.frames - 1);
    for (const clip of this.clips) this.place(clip, (this.frameOf(clip) + 0.5) / clip.fps);
    this.shown();
  }

  /* One seek of a video at a time; of several wishes meanwhile the last one counts. */
  place(clip, seconds) {
    if (clip.video.seeking) {
      clip.wanted = seconds;
    } else if (Math.abs(clip.video.currentTime - seconds) > 1e-4) {
      clip.video.currentTime = seconds;
    }
  }

  arrived(clip) {
    const wanted = clip.wanted;
    clip.wanted = null;
    if (wanted !== null) this.place(clip, wanted);
    else clip.settled?.();
  }

  settled() {
    return Promise.all(this.clips.filter((clip) => clip.video.seeking).map((clip) =>
      new Promise((done) => { clip.settled = done; })));
  }

  async play() {
    if (this.frame >= this.frames - 1) this.seek(0);
    const turn = ++this.turn;
    this.playing = true;
    this.shown();
    await this.settled();
    if (turn !== this.turn) return;
    try {
      await Promise.all(this.clips.filter((clip) => !this.holds(clip)).map((clip) => {
        clip.video.playbackRate = this.rate;
        return clip.video.play();
      }));
    } catch {
      if (turn === this.turn) this.seek(this.frame);  // a browser that plays nothing yet still steps and seeks
      return;
    }
    if (turn === this.turn) this.tick(turn);
  }

  pause() { this.seek(this.frame); }

  halt() {
    this.turn += 1;
    this.playing = false;
    cancelAnimationFrame(this.next);
    for (const { video } of this.clips) video.pause();
  }

  tick(turn) {
    if (turn !== this.turn) return;
    const { video } = this.leader;
    if (video.ended || video.currentTime >= length(this.leader) - 1e-3) {
      this.seek(this.loop ? 0 : this.frames - 1);
      if (this.loop) this.play();
      return;
    }
    const now = clamp(Math.floor(video.currentTime * this.fps + 1e-6), 0, this.frames - 1);
    if (now !== this.frame) {
      this.frame = now;
      this.shown();
    }
    for (const clip of this.clips) if (clip !== this.leader) this.keepUp(clip, video.currentTime);
    this.next = requestAnimationFrame(() => this.tick(turn));
  }

  keepUp(clip, seconds) {
    const { video } = clip;
    if (seconds >= length(clip)) {
      if (!video.paused) video.pause();
      this.place(clip, (clip.frames - 0.5) / clip.fps);
      return;
    }
    const ahead = video.currentTime - seconds;
    if (Math.abs(ahead) > JUMP_S && !video.seeking) video.currentTime = seconds;
    const bend = Math.abs(ahead) < 0.25 / clip.fps ? 0 : -Math.sign(ahead) * CATCH_UP;
    const rate = this.rate * (1 + bend);
    if (video.playbackRate !== rate) video.playbackRate = rate;
  }

  setRate(rate) {
    this.rate = rate;
    for (const { video } of this.clips) video.playbackRate = rate;
  }
}

const length = (clip) => clip.frames / clip.fps;

function opened(video) {
  return new Promise((done, failed) => {
    const settle = () => {
      if (video.error) failed(video.error);
      else if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) done();
    };
    for (const event of ["loadeddata", "error"]) video.addEventListener(event, settle);
    video.preload = "auto";
    if (video.readyState === HTMLMediaElement.HAVE_NOTHING && video.networkState !== HTMLMediaElement.NETWORK_LOADING) {
      video.load();
    }
    settle();
  });
}
